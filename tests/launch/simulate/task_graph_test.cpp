#include "launch/simulate/task_graph.h"

#include <gmock/gmock.h>

namespace tessera {
namespace {

using Task = TaskGraph::Task;

TEST(TaskGraph, AResourceServesOneAtATimeInTheOrderOfAdding) {
  TaskGraph graph;
  const auto processor = graph.add_resource(), link = graph.add_resource();
  const Task early = graph.add(TaskGraph::nothing, 1, 0, {});
  const Task late = graph.add(processor, 5, 0, {});
  const Task after_early[] = {early}, after_late[] = {late};
  const Task first = graph.add(link, 7, 0.5, after_early);  // ready at 1, holds the link until 8
  const Task second = graph.add(link, 2, 0.5, after_late);  // ready at 5
  const Task third = graph.add(link, 1, 0, after_early);    // ready at 1, but behind the others
  const Task both[] = {first, second};
  const Task last = graph.add(processor, 1, 0, both);
  EXPECT_EQ(graph.done(first), 8.5);
  EXPECT_EQ(graph.done(second), 10.5) << "latency does not hold the link";
  EXPECT_EQ(graph.done(third), 11);
  EXPECT_EQ(graph.done(last), 11.5);
}

TEST(TaskGraphDeathTest, RefusesWhatWouldBeACycle) {
  TaskGraph graph;
  const Task itself[] = {0};
  EXPECT_DEATH(graph.add(TaskGraph::nothing, 1, 0, itself), "before");
}

}  // namespace
}  // namespace tessera
