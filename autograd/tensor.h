// Tensor: an Array and, where a gradient is wanted, its place in the graph.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tensor/array.h"

namespace graft {

struct Node;

// How to make a cheap result again (a norm, an activation, a dropout) from what is kept anyway.
struct Recipe {
  std::vector<Array> from;      // what it holds
  std::function<Array()> make;  // the same bits as the first time
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(Array value) : value_(std::move(value)) {}  // a constant: no gradient flows into it
  Tensor(Array value, std::shared_ptr<Node> node)
      : value_(std::move(value)), node_(std::move(node)) {}

  // A leaf that wants a gradient: what training updates. The name appears in explain().
  static Tensor leaf(Array value, std::string name = "leaf");

  const Array& value() const { return value_; }
  Array& value() { return value_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t dim(int i) const { return value_.dim(i); }
  std::int64_t numel() const { return value_.numel(); }
  Dtype dtype() const { return value_.dtype(); }
  ArrayKind kind() const { return value_.kind(); }
  bool defined() const { return value_.defined(); }
  double item() const { return value_.item(); }

  bool needs_grad() const { return node_ != nullptr; }
  const std::shared_ptr<Node>& node() const { return node_; }
  Tensor detach() const { return Tensor(value_); }

  // Set by ops whose result is cheaper to make again than to keep.
  const std::shared_ptr<const Recipe>& recipe() const { return recipe_; }
  Tensor with_recipe(Recipe recipe) && {
    return std::move(*this).with_recipe(std::make_shared<const Recipe>(std::move(recipe)));
  }
  Tensor with_recipe(std::shared_ptr<const Recipe> recipe) && {
    recipe_ = std::move(recipe);
    return std::move(*this);
  }

 private:
  Array value_;
  std::shared_ptr<Node> node_;
  std::shared_ptr<const Recipe> recipe_;
};

}  // namespace graft
