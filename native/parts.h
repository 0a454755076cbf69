// SPDX-License-Identifier: Apache-2.0
// A batch in parts, for operations that several threads share.

#ifndef LENET_PARTS_H_
#define LENET_PARTS_H_

#include <algorithm>
#include <vector>

#include "op.h"
#include "tensorflow/core/util/work_sharder.h"

namespace lenet {
namespace {

// Splits a batch into parts, one per thread. Their number does not depend on the load of
// the machine, so sums have the same bits each time.
struct Parts {
  Parts(OpKernelContext* c, int64_t images)
      : workers(*c->device()->tensorflow_cpu_worker_threads()), images(images),
        count(std::max<int64_t>(1, std::min<int64_t>(workers.num_threads, images))) {}

  // Calls f(part, first image, number of images).
  template <typename F>
  void Each(F f) const {
    auto some = [&](int64_t first, int64_t end) {
      for (int64_t part = first; part < end; ++part) {
        const int64_t from = images * part / count;
        f(part, from, images * (part + 1) / count - from);
      }
    };
    if (count == 1)
      some(0, 1);
    else
      tensorflow::Shard(workers.num_threads, workers.workers, count, 1'000'000, some);
  }

  // Adds what the other parts have computed to part 0's: sums is [count - 1, size of `to`].
  void AddTo(float* to, const std::vector<float>& sums) const {
    const int64_t size = count > 1 ? sums.size() / (count - 1) : 0;
    for (int64_t i = 0; i < size; ++i)
      for (int64_t part = 1; part < count; ++part) to[i] += sums[(part - 1) * size + i];
  }

  const tensorflow::DeviceBase::CpuWorkerThreads& workers;
  const int64_t images, count;
};

}  // namespace
}  // namespace lenet

#endif  // LENET_PARTS_H_
