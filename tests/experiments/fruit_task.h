// A task of a few rows that its words tell.
#pragma once

#include "experiments/data/tasks.h"

namespace graft::testing {

inline TaskData fruit_task() {
  TaskData task;
  task.name = "toy";
  task.metric = "accuracy";
  task.labels = {"animal", "fruit"};
  task.train = {{"the dog barks", "", 0, 0, 0},
                {"a cat purrs", "", 0, 0, 1},
                {"ripe apple", "", 1, 0, 2},
                {"sweet pear", "", 1, 0, 3},
                {"dog and cat", "", 0, 0, 4}};
  task.dev = {{"cat", "", 0, 0, 5}, {"pear apple", "", 1, 0, 6}};
  task.test = {{"the dog", "", 0, 0, 7}};
  return task;
}

}  // namespace graft::testing
