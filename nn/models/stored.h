// Which tensor of a file holds which parameters of a model, and how their numbers lie in it.
#pragma once

#include <string>
#include <vector>

#include "nn/model.h"

namespace graft {

// One tensor of a model file: one parameter, or several joined along their first dimension.
struct Stored {
  std::string name;
  Shape shape;              // in the file
  bool transposed = false;  // the file has the joined matrix [out, in] as [in, out]
  std::vector<Weight*> pieces;
};

// In the order of Model::each. With a head, as a folder has it that was saved with the model's:
// what belongs to the vocabulary head and a body's matrix for pooling are not there. Throws where
// the family has no place for a parameter.
std::vector<Stored> stored_tensors(Model& model, bool head = false);

// The numbers as the file has them, from what stands in the weights now.
std::vector<float> joined(const Stored& tensor);
// Puts the pieces of the file's tensor in the parameters' place, as constants: views of it where
// its type is computed in `dtype`, else copies of that type.
void split(const Stored& tensor, const Array& whole, Dtype dtype);

}  // namespace graft
