// Adapter: one way of adapting a frozen model. A subclass is a file, a file is a paper.
#pragma once

#include <functional>
#include <map>

#include "nn/model.h"
#include "nn/optim/optimizer.h"
#include "peft/spec.h"

namespace graft {

class Adapter {
 public:
  virtual ~Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;

  // Makes the parameters, adds the edits, holds their handles. Throws, with a list of what there
  // is, where the options match nothing. Called once.
  virtual void attach(Model&) = 0;
  // How many numbers train, from the paper's formula and the shapes alone: an independent check on
  // what attach() allocates.
  virtual std::int64_t formula(const Arch&) const = 0;

  // Puts the adapted weights in the base's place, so that inference costs nothing more; and takes
  // them out again, bit for bit. Copies of base weights stand there already; a method that edits
  // slots says how, and throws where it cannot. An edit that is off is left out. Unmerging throws
  // while another adapter's merged weights stand in front of these.
  virtual void merge();
  virtual void unmerge();
  bool merged() const { return merged_; }

  // Of what the method's row promises for its standard options, what these do not keep: the start,
  // and merging ("": they merge, else why not).
  bool starts_as_base() const { return starts_as_base_; }
  const std::string& no_merge() const { return no_merge_; }
  // Whether a linear reads its input scaled by this adapter. Merged, only the matrix is scaled, so
  // an edit of that linear must have been merged before.
  virtual bool scales_input(const Site&) const { return false; }

  // What its edits do to a linear's output, or to a matrix: add what does not depend on it, or
  // multiply its entries. One that adds may change places with another that adds, and so on.
  enum class Change { other, adds, scales };
  virtual Change change() const { return Change::other; }

  // A start that the bare base gives, of words say: attach() finds what read_base() has kept.
  // Called before it, while what this spec attached before, and Routed's other adapters, stand
  // aside.
  virtual bool reads_base() const { return false; }
  virtual void read_base(Model&) {}

  // A start that depends on data: what the bare base makes of each task's examples, of which it
  // wants so many (0: none).
  virtual int examples() const { return 0; }
  virtual void calibrate(const Model&, const std::vector<Batch>& /*of_tasks*/) {}

  // Whether it changes matrices before they are multiplied with. Merged, such a change goes in
  // before what scales or adds to the products, wherever it stands in the spec.
  virtual bool edits_weights() const { return false; }

  virtual Tensor penalty() const { return {}; }  // a regulariser to add to the loss
  // Budget schedules. Where a loss that is scaled overflowed it comes again for the same step.
  virtual void after_backward(int /*step*/) {}

  // Takes the edits and copies out of the model, which is then as without them, and puts them back
  // as they were, each edit on or off. Throws where it is merged, or where a copy's place is taken.
  void suspend();
  void resume();
  bool suspended() const { return suspended_; }

  const Parameters& parameters() const { return parameters_; }
  // What does not train, but which no seed and no base would give again: files hold it.
  const Parameters& constants() const { return constants_; }
  // What a parameter starts as, in words: "N(0, 0.02)", "0", "the base's".
  const std::string& begins_as(const Parameter& p) const { return start_.at(&p); }
  const std::string& name() const { return name_; }
  // Switches the edits at layers first..last on or off (-1: those outside the blocks). Of what is
  // suspended: what they will be once it is back.
  void enable(int first, int last, bool on);
  // Every edit's place and how often it ran.
  struct Fired {
    Site site;
    std::string name;
    std::uint64_t calls;
  };
  std::vector<Fired> fired() const;
  std::vector<std::pair<Site, EditBase*>> edits() const;        // as long as this lives
  bool trains_base() const { return !owned_.empty(); }          // has copies in the base's places
  const std::vector<Owned>& covers() const { return covers_; }  // its merged weights
  void drop_covers();                                           // of a merge() that ended half way

 protected:
  explicit Adapter(std::string name) : name_(std::move(name)) {}

  struct Like {  // how a parameter trains
    bool decay = true;
    double lr_scale = 1;
    bool trains = true;      // or it is a constant
    std::string start = {};  // in words, where attach() puts something else there than Init says
  };
  // A new parameter at a site. Its site and name are its address in files and in noise.
  Tensor param(const Model&, const Site&, const std::string& name, Shape, const Init&, Like);
  Tensor param(const Model& m, const Site& s, const std::string& name, Shape shape, const Init& i) {
    return param(m, s, name, std::move(shape), i, Like{});
  }
  // Trains a private copy of a base parameter in its place, f32 where the base has half precision;
  // the base's bytes never change. A copy that does not train is one of an earlier run's.
  void own(Weight&, bool trains = true);
  EditBase* hold(const Site&, Handle);  // the edit, which lives as long as this
  // For merge(): puts a merged value in a weight's place, and, when all are there, switches the
  // edits off. unmerge() takes the values out and gives each edit back what it was, on or off.
  void cover(Weight&, Tensor value);
  void edits_off();

  bool merged_ = false;
  bool starts_as_base_ = true;
  std::string no_merge_;

 private:
  void edits_back();

  std::string name_;
  Parameters parameters_, constants_;
  std::map<const Parameter*, std::string> start_;
  std::vector<std::pair<Site, Handle>> handles_;
  std::vector<Owned> owned_, covers_;
  bool suspended_ = false;
  std::vector<bool> enabled_;  // of each edit, while suspended or merged
};

// Whether a parameter is of a task that came after the others: a run that goes on from a saved
// adapter may find it missing there.
inline bool begins_anew(const Parameter& p) { return p.name.starts_with("new."); }

// A row of the table of methods. The table is a value: commands, experiments and the contract take
// it as an argument, so a method outside this tree is one file, one row and a main of its own.
struct Method {
  std::string name;     // as a spec names it
  std::string paper;    // authors, year, section or equation
  std::string slots;    // where it edits
  std::string formula;  // of the trainable count, in the paper's letters
  std::string options;  // key=standard ...
  bool mergeable = false;
  bool starts_as_base = false;  // before training its outputs are the base's, bit for bit
  std::unique_ptr<Adapter> (*make)(Options&, const Arch&);
  std::string example;  // a spec for tests: small, every part of the method at work
};
using Methods = std::vector<Method>;

// The adapters of one spec, attached in order; dropped in reverse, which leaves the bare model, of
// what is merged, too.
class Adaptation {
 public:
  Adaptation(const Methods&, const std::string& spec, Model&);
  ~Adaptation();
  Adaptation(const Adaptation&) = delete;
  Adaptation& operator=(const Adaptation&) = delete;

  const std::string& spec() const { return spec_; }
  Parameters parameters() const;  // of all adapters, in order
  Parameters stored() const;      // what files hold: the constants, too
  int examples() const;           // how many of a task's examples the start wants
  void calibrate(const Model&, const std::vector<Batch>& of_tasks);  // by the bare base
  std::int64_t count() const;  // numbers that train, the head's not among them
  std::int64_t formula() const { return formula_; }
  Tensor penalty() const;  // sum of the adapters' penalties; undefined if none
  void after_backward(int step);
  void enable(int first, int last, bool on);
  // All adapters or none. Throws where one cannot be merged, with the reason, and where a merged
  // number would be NaN or infinite; the model has not changed then. Unmerging throws where what
  // was merged later, by another Adaptation, stands in front: that goes first.
  void merge();
  void unmerge();
  bool merged() const { return !adapters_.empty() && adapters_.front()->merged(); }
  std::uint64_t merge_turn() const { return merge_turn_; }  // grows from each merge to the next
  // All adaptations of this model, in the order of attaching, this one among them. Merging then
  // throws, too, where it would come before what another active one does first.
  void stands_beside(std::function<std::vector<const Adaptation*>()> all) {
    beside_ = std::move(all);
  }
  // Of each adapter why it cannot be merged as it stands in the spec; "" where it can. Needs no
  // weights.
  std::vector<std::string> why_not_merged() const;
  void suspend();  // see Adapter
  void resume();
  bool suspended() const { return suspended_; }
  const std::vector<std::unique_ptr<Adapter>>& adapters() const { return adapters_; }

 private:
  void show_base(Adapter&);
  std::vector<Adapter*> merge_order() const;
  void check_beside() const;

  std::string spec_;
  Model& model_;
  bool suspended_ = false;
  std::uint64_t merge_turn_ = 0;
  std::function<std::vector<const Adaptation*>()> beside_;
  std::int64_t formula_ = 0;
  std::vector<bool> mergeable_;  // by each adapter's row of the table
  std::vector<std::unique_ptr<Adapter>> adapters_;
};

// The trainable parameters of the model's head, made leaves. Nothing if it has none.
Parameters train_head(Model&);

}  // namespace graft
