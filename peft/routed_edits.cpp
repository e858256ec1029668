#include "peft/routed_edits.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace graft {
namespace {

const Sequence& rows_of(const Ctx& ctx) {
  check(ctx.sequence != nullptr, "routed: an edit outside a forward pass");
  return *ctx.sequence;
}

// Edits of keys and values, and of the sequence itself, on the rows of one adapter's sequences.
struct OnItsRows {
  int adapter;

  // Keys and values of an attention across are an encoder's rows, which have places of their own.
  Attn operator()(const auto& edit, Attn a, const Ctx& ctx) const {
    const PartOfBatch part(ctx, rows_of(ctx), adapter);
    if (part.sequence.empty()) return a;
    std::optional<PartOfBatch> of_memory;
    if (a.across && a.k.defined()) of_memory.emplace(ctx, *rows_of(ctx).memory, adapter);
    const PartOfBatch& places = of_memory ? *of_memory : part;
    const Tensor q = part.picked(a.q), k = places.picked(a.k), v = places.picked(a.v);
    Attn own = edit(Attn{q, k, v, a.scale, {}, a.across}, part.ctx);
    check(own.scale == a.scale,
          "routed: an edit changes the scale of attention's scores, which "
          "all sequences share");
    const auto changed = [](const Tensor& now, const Tensor& before) {
      return now.defined() &&
             (now.value().storage() != before.value().storage() || now.shape() != before.shape());
    };
    if (changed(own.q, q)) a.q = part.put_back(a.q, own.q);
    if (changed(own.k, k)) a.k = places.put_back(a.k, own.k);
    if (changed(own.v, v)) a.v = places.put_back(a.v, own.v);
    for (Bank& bank : own.banks) {
      bank.of = adapter;
      a.banks.push_back(std::move(bank));
    }
    return a;
  }

  // The edit may insert rows: sequences are put together anew.
  Sequence operator()(const auto& edit, Sequence s, const Ctx& ctx) const {
    PartOfBatch part(ctx, s, adapter);
    if (part.sequence.empty()) return s;
    part.rows.rows = part.picked(s.rows);
    Sequence own = edit(part.rows, part.ctx);
    check(own.length.size() == part.sequence.size(), "routed: {} sequences came of {}",
          own.length.size(), part.sequence.size());
    const auto here = starts_of(s.length), there = starts_of(own.length);
    Sequence out;
    out.memory = s.memory;
    std::vector<std::int32_t> from;
    for (std::size_t i = 0, p = 0; i < s.length.size(); ++i) {
      const bool mine = p < part.sequence.size() && part.sequence[p] == static_cast<int>(i);
      const Sequence& of = mine ? own : s;
      const std::int32_t begin = mine ? there[p] : here[i], end = mine ? there[p + 1] : here[i + 1];
      append(out.position, of.position, begin, end);
      append(out.example, of.example, begin, end);
      out.length.push_back(end - begin);
      for (std::int32_t row = begin; row < end; ++row) {
        const std::int32_t source = of.source[static_cast<std::size_t>(row)];
        out.source.push_back(source < 0 || !mine ? source : source + part.start[p]);
        from.push_back(row + (mine ? here.back() : 0));
      }
      p += mine;
    }
    out.rows = gather(concat({s.rows, own.rows}, 0), Array::of(from));
    return out;
  }
};

Tensor picked(const PartOfBatch& part, const Tensor& x) { return part.picked(x); }
Sub picked(const PartOfBatch& part, const Sub& sub) {
  return {part.picked(sub.x), part.picked(sub.residual)};
}
const Ctx& picked(const PartOfBatch& part, const Ctx&) { return part.ctx; }

// What an adapter made of its rows.
struct Piece {
  std::unique_ptr<PartOfBatch> of;
  Tensor rows;
};

// y with the pieces in place of their rows.
Tensor joined(const Tensor& y, std::vector<Piece> pieces) {
  std::vector<Tensor> all;
  if (std::ranges::all_of(pieces, [](const Piece& p) { return p.of->one_run(); })) {
    std::ranges::sort(pieces, {}, [](const Piece& p) { return p.of->row.front(); });
    std::int64_t next = 0;
    const auto base_until = [&](std::int64_t end) {
      if (end > next) all.push_back(slice(y, 0, next, end));
    };
    for (const Piece& p : pieces) {
      base_until(p.of->row.front());
      all.push_back(p.rows);
      next = p.of->row.back() + 1;
    }
    base_until(y.dim(0));
    return concat(all, 0);
  }
  std::vector<std::int32_t> from(static_cast<std::size_t>(y.dim(0)));
  std::iota(from.begin(), from.end(), 0);
  auto next = static_cast<std::int32_t>(y.dim(0));
  all.push_back(y);
  for (const Piece& p : pieces) {
    for (const std::int32_t row : p.of->row) from[static_cast<std::size_t>(row)] = next++;
    all.push_back(p.rows);
  }
  return gather(concat(all, 0), Array::of(from));
}

// The edits of all adapters in one slot; an adapter's own keep their order.
template <class T, class... In>
class Together {
 public:
  using Edit = EditOf<T, In...>;
  explicit Together(int adapters) : adapters_(adapters) {}

  static void take(const std::shared_ptr<Together>& all, int adapter, Edit& edit) {
    all->members_.push_back({adapter, &edit, std::move(edit.edit)});
    edit.edit = [all, me = &edit](T value, const In&... in) {
      return all->first() == me ? (*all)(std::move(value), in...) : std::move(value);
    };
  }

 private:
  struct Member {
    int adapter;
    const Edit* edit;  // says whether it is enabled
    std::function<T(T, const In&...)> run;
  };

  const Edit* first() const {
    return std::ranges::find_if(members_, [](const Member& m) { return m.edit->enabled; })->edit;
  }

  T operator()(T value, const In&... in) const {
    const Ctx& ctx = std::get<sizeof...(In) - 1>(std::tie(in...));
    for (const std::int32_t a : ctx.adapter)
      check(-1 <= a && a < adapters_, "routed: adapter {} for a sequence; there are 0..{}, and -1",
            a, adapters_ - 1);
    if constexpr (std::is_same_v<T, Tensor>) {
      return on_rows(std::move(value), ctx, in...);
    } else {
      for (const Member& m : members_)
        if (m.edit->enabled) value = OnItsRows{m.adapter}(m.run, std::move(value), in...);
      return value;
    }
  }

  Tensor on_rows(Tensor y, const Ctx& ctx, const In&... in) const {
    std::vector<Piece> pieces;
    for (auto m = members_.begin(); m != members_.end();) {
      const int adapter = m->adapter;
      Piece piece{std::make_unique<PartOfBatch>(ctx, rows_of(ctx), adapter), {}};
      const PartOfBatch& part = *piece.of;
      for (; m != members_.end() && m->adapter == adapter; ++m) {
        if (!m->edit->enabled || part.sequence.empty()) continue;
        if (!piece.rows.defined()) piece.rows = part.whole() ? std::move(y) : part.picked(y);
        piece.rows = m->run(std::move(piece.rows), picked(part, in)...);
      }
      if (piece.rows.defined() && part.whole()) return piece.rows;
      if (piece.rows.defined()) pieces.push_back(std::move(piece));
    }
    return pieces.empty() ? y : joined(y, std::move(pieces));
  }

  int adapters_;
  std::vector<Member> members_;
};

}  // namespace

template <class T, class... In>
bool RoutedEdits::take(EditBase& base) {
  auto* edit = dynamic_cast<EditOf<T, In...>*>(&base);
  if (!edit || (sizeof...(In) == 1 && std::is_same_v<T, Tensor> && !edit->of_rows)) return false;
  using All = Together<T, In...>;
  std::any& slot = slots_[edit->slot];
  if (!slot.has_value()) slot = std::make_shared<All>(adapters_);
  All::take(std::any_cast<std::shared_ptr<All>>(slot), taken_, *edit);
  return true;
}

void RoutedEdits::route(const Adaptation& adaptation, const std::string& name) {
  for (const auto& adapter : adaptation.adapters()) {
    check(!adapter->trains_base(),
          "routed: adapter '{}' cannot be routed: {} trains copies of the base's own parameters, "
          "which all rows share{}",
          name, adapter->name(),
          adapter->edits().empty() ? "" : "; leave them out (norms=no, bias=none, no save=)");
    for (const auto& [site, edit] : adapter->edits())
      check(take<Tensor, Tensor, Ctx>(*edit) || take<Tensor, Sub, Ctx>(*edit) ||
                take<Tensor, Ctx>(*edit) || take<Attn, Ctx>(*edit) || take<Sequence, Ctx>(*edit),
            "routed: adapter '{}' cannot be routed: {} edits a weight or a norm at {} ({}), which "
            "all rows share",
            name, adapter->name(), to_string(site), edit->name);
  }
  ++taken_;
}

}  // namespace graft
