// Slot: a typed place in a module where edits may be added. Its type is the contract; an empty slot
// costs one branch and leaves every bit as it was.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace graft {

// One edit, as its Handle sees it.
struct EditBase {
  std::string name;
  bool enabled = true;
  std::uint64_t calls = 0;     // how often it ran: an edit that never fires is a bug
  const void* slot = nullptr;  // tells its slot from others
  virtual ~EditBase() = default;
};

// The edit itself, which whoever holds its Handle may wrap in another of its kind.
template <class T, class... In>
struct EditOf : EditBase {
  std::function<T(T, const In&...)> edit;
  // A single tensor is rows of activations; false: it may be anything, a matrix say.
  bool of_rows = false;
};

// Holds an edit in its slot: dropping the handle takes the edit out. It may outlive the slot.
class Handle {
 public:
  Handle() = default;
  Handle(std::shared_ptr<EditBase> edit, std::function<void()> remove)
      : edit_(std::move(edit)), remove_(std::move(remove)) {}
  Handle(Handle&& other) noexcept { swap(other); }
  Handle& operator=(Handle&& other) noexcept {
    Handle(std::move(other)).swap(*this);
    return *this;
  }
  ~Handle() {
    if (remove_) remove_();
  }
  EditBase& edit() const { return *edit_; }

 private:
  void swap(Handle& other) noexcept {
    std::swap(edit_, other.edit_);
    std::swap(remove_, other.remove_);
  }
  std::shared_ptr<EditBase> edit_;
  std::function<void()> remove_;
};

// An ordered chain of edits T -> T, each with read-only inputs In. Order is the order of adding: an
// edit sees the value as edited so far.
template <class T, class... In>
class Slot {
 public:
  using Edit = std::function<T(T, const In&...)>;
  Slot() = default;
  enum class Of { anything, rows };
  explicit Slot(Of of) : of_rows_(of == Of::rows) {}
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

  bool empty() const { return chain_->empty(); }

  [[nodiscard]] Handle add(std::string name, Edit edit) {
    auto entry = std::make_shared<Entry>();
    entry->name = std::move(name);
    entry->edit = std::move(edit);
    entry->of_rows = of_rows_;
    entry->slot = chain_.get();
    chain_->push_back(entry);
    return Handle(entry, [weak = std::weak_ptr(chain_), entry] {
      entry->enabled = false;  // a call under way skips it
      if (auto chain = weak.lock()) std::erase(*chain, entry);
    });
  }

  T operator()(T value, const In&... in) const {
    if (empty()) return value;
    for (const auto& entry : std::vector(*chain_)) {  // a copy: an edit may drop handles
      if (!entry->enabled) continue;
      ++entry->calls;
      value = entry->edit(std::move(value), in...);
    }
    return value;
  }

 private:
  using Entry = EditOf<T, In...>;
  bool of_rows_ = false;
  std::shared_ptr<std::vector<std::shared_ptr<Entry>>> chain_ =
      std::make_shared<std::vector<std::shared_ptr<Entry>>>();
};

}  // namespace graft
