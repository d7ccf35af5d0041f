// sample.cu: changes to logits, then one token a row, as src/engine/sampler.rs
// formula   weight = exp((logit - max) / temperature); of the tokens sorted by weight (ties: lower id
//           first) those stay that have rank < top_k, mass before them <= top_p * total and weight >=
//           min_p; the first whose cumulated mass exceeds draw * mass is the token. Without limits
//           tokens stand by id. temperature 0: the best
// shapes    logits [rows, vocab] f32 with stride, vocab <= 2^21; settings [rows + 1]; tokens [rows].
//           Rows whose token is given, or that are left alone, are not read
// launch    grid (rows), block 1024, 32.5 KiB of static shared memory
// tiles     a block a row; 32 buckets a warp, one a thread
// traffic   unique: reads rows * vocab * 4, writes rows * 4; issued: the row 1 to 8 times, from L2
// bound     L2: at most 8 * vocab * 4 bytes a row, 4 MB at 128k
// numerics  masses are integers of 2^-30 of the best token's weight, so sums have no order and a row's
//           token depends on that row alone. Tokens below 2^-31 of the best are never drawn
// needs     sm_80
// why       no sort: three histograms by digits of the weight find the cut, three the drawn weight.
//           Shared memory has no native 64-bit addition, so masses are added in three 32-bit parts.
#include "philox.cuh"
#include "reduce.cuh"

constexpr u32 kBuckets = 1024;
constexpr f32 kOne = 1073741824.0f;  // mass of the best token: 2^30

struct Histogram {
  u32 count[kBuckets], low[kBuckets], mid[kBuckets], high[kBuckets];

  __device__ void clear() {
    const u32 i = threadIdx.x;
    count[i] = low[i] = mid[i] = high[i] = 0;
  }
  __device__ void add(u32 bucket, u32 mass) {
    atomicAdd(&count[bucket], 1u);
    if (mass & 1023) atomicAdd(&low[bucket], mass & 1023);
    if (mass >> 10 & 1023) atomicAdd(&mid[bucket], mass >> 10 & 1023);
    if (mass >> 20) atomicAdd(&high[bucket], mass >> 20);
  }
  __device__ u64 mass(u32 i) const {
    return low[i] + (static_cast<u64>(mid[i]) << 10) + (static_cast<u64>(high[i]) << 20);
  }
};

// What stands before a place in the sorted order.
struct Before {
  u32 count;
  u64 mass;
};

// Where a search ended: a weight's leading digits, what is before it and what it holds.
struct Found {
  u32 digits;
  u32 hit;
  Before before;
  u32 count;
  u64 mass;
};

struct Shared {
  Histogram first, next;
  Before totals[32];
  Found found;
  f32 best[32];
  u32 best_at[32];
  u32 token;
  u64 bits;  // the draw, made by thread 0
};

// A row, and how a logit becomes a weight.
struct Row {
  const f32* logits;
  u32 vocab;
  f32 most, inverse, min_p;

  __device__ f32 weight(u32 id) const {
    const f32 w = expf((logits[id] - most) * inverse);
    return w >= min_p ? w : 0.0f;  // NaN too
  }
};

__device__ inline u32 mass_of(f32 weight) { return __float2uint_rn(weight * kOne); }

__device__ inline Before operator+(Before a, Before b) {
  return {a.count + b.count, a.mass + b.mass};
}

__device__ inline Before shuffle_up(Before x, u32 step) {
  return {__shfl_up_sync(~0u, x.count, step), __shfl_up_sync(~0u, x.mass, step)};
}

// Sum over this warp's lanes up to this one.
__device__ inline Before warp_scan(Before x) {
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const Before other = shuffle_up(x, step);
    if (lane_id() >= step) x = x + other;
  }
  return x;
}

// Sum over the block's threads up to this one. A barrier stands before and after.
__device__ inline Before block_scan(Before x, Before* totals) {
  x = warp_scan(x);
  if (lane_id() == 31) totals[warp_id()] = x;
  __syncthreads();
  if (warp_id() == 0) totals[lane_id()] = warp_scan(totals[lane_id()]);
  __syncthreads();
  return warp_id() == 0 ? x : x + totals[warp_id() - 1];
}

// The bucket, from the heaviest down, in which `passes` becomes true of what stands up to its end.
template <class Passes>
__device__ inline void find_bucket(Shared& s, const Histogram& h, u32 digits, Before base,
                                   Passes passes) {
  const u32 bucket = kBuckets - 1 - threadIdx.x;
  const Before own = {h.count[bucket], h.mass(bucket)};
  if (threadIdx.x == 0) s.found.hit = 0;
  const Before upto = base + block_scan(own, s.totals);
  const Before before = {upto.count - own.count, upto.mass - own.mass};
  if (passes(upto) && !passes(before))
    s.found = {digits << 10 | bucket, 1, before, own.count, own.mass};
  __syncthreads();
}

// Counts the weights whose leading digits are `digits` by their next digit.
__device__ inline void count_digit(Shared& s, Histogram& h, const Row& row, u32 digits, u32 shift) {
  h.clear();
  __syncthreads();
  for (u32 id = threadIdx.x; id < row.vocab; id += blockDim.x) {
    const f32 w = row.weight(id);
    const u32 key = __float_as_uint(w), mass = mass_of(w);
    if (mass > 0 && (shift == 20 || key >> (shift + 10) == digits)) h.add(key >> shift & 1023, mass);
  }
  __syncthreads();
}

// The weight at which `passes` becomes true; `s.first` is counted. `s.found.hit` is 0 if none.
template <class Passes>
__device__ inline Found find_weight(Shared& s, const Row& row, Passes passes) {
  find_bucket(s, s.first, 0, {0, 0}, passes);
  Found found = {};
  if (s.found.hit) found = s.found;
  for (int shift = 10; found.hit && shift >= 0; shift -= 10) {
    count_digit(s, s.next, row, found.digits, shift);
    find_bucket(s, s.next, found.digits, found.before, passes);
    found = s.found;
  }
  __syncthreads();
  return found;
}

// The best token: the lower id of equals; NaN never wins.
__device__ inline u32 argmax(Shared& s, const f32* logits, u32 vocab, f32& most) {
  f32 best = -INFINITY;
  u32 at = 0xffffffffu;
  for (u32 id = threadIdx.x; id < vocab; id += blockDim.x) {
    const f32 x = logits[id];
    if (x > best) {
      best = x;
      at = id;
    }
  }
  warp_best(best, at);
  if (lane_id() == 0) {
    s.best[warp_id()] = best;
    s.best_at[warp_id()] = at;
  }
  __syncthreads();
  best = s.best[lane_id()];
  at = s.best_at[lane_id()];
  warp_best(best, at);
  most = best;
  return at == 0xffffffffu ? 0 : at;
}

// The `index`-th token, by id, of that weight.
__device__ inline u32 tied_token(Shared& s, const Row& row, u32 key, u32 index) {
  u32 before = 0;
  for (u32 first = 0; first < row.vocab; first += blockDim.x) {
    const u32 id = first + threadIdx.x;
    const bool tied = id < row.vocab && __float_as_uint(row.weight(id)) == key;
    const Before upto = block_scan({tied ? 1u : 0u, 0}, s.totals);
    if (tied && before + upto.count == index + 1) s.token = id;
    before += s.totals[31].count;
    __syncthreads();
    if (before > index) break;
  }
  return s.token;
}

// Without limits: the first token, by id, whose cumulated mass exceeds draw * total. A warp sums a
// run of ids; the one that holds the target goes through its run again.
__device__ inline u32 draw_by_id(Shared& s, const Row& row) {
  const u32 run = ((row.vocab + 31) / 32 + 31) / 32 * 32;  // ids of a warp, a multiple of 32
  const u32 begin = min(warp_id() * run, row.vocab), end = min(begin + run, row.vocab);
  Before own = {0, 0};
  for (u32 id = begin + lane_id(); id < end; id += 32) own.mass += mass_of(row.weight(id));
  const Before upto = block_scan(own, s.totals);
  const u64 total = s.totals[31].mass;
  const u64 target = __umul64hi(s.bits << 11, total);
  const u64 after = s.totals[warp_id()].mass;
  u64 mass = warp_id() == 0 ? 0 : s.totals[warp_id() - 1].mass;
  if (mass <= target && target < after) {
    for (u32 first = begin; first < end; first += 32) {
      const u32 id = first + lane_id();
      const Before sum = warp_scan({0, id < end ? mass_of(row.weight(id)) : 0u});
      const u32 passed = __ballot_sync(~0u, mass + sum.mass > target);
      if (passed) {
        if (lane_id() == 0) s.token = first + __ffs(passed) - 1;
        break;
      }
      mass += __shfl_sync(~0u, sum.mass, 31);
    }
  }
  __syncthreads();
  return s.token;
}

// With limits: cut, then draw from what is left.
__device__ inline u32 draw_by_weight(Shared& s, const Row& row, const SampleRow& set,
                                     u64 total) {
  const u32 k = set.top_k == 0 ? 0xffffffffu : set.top_k;
  const u64 share = static_cast<u64>(fmaxf(set.top_p, 0.0f) * 4294967296.0f);
  const u64 limit = set.top_p >= 1.0f ? ~0ull : __umul64hi(total, share << 32);
  count_digit(s, s.first, row, 0, 20);
  const Found cut = find_weight(
      s, row, [=](Before b) { return b.count >= k || b.mass > limit; });
  u64 kept;  // mass of what stays
  if (cut.hit) {
    const u64 each = cut.mass / cut.count;  // ties: all have this mass
    const u64 by_mass = (limit - cut.before.mass) / each + 1;
    const u64 most = min(static_cast<u64>(cut.count), static_cast<u64>(k - cut.before.count));
    kept = cut.before.mass + min(most, by_mass) * each;
  } else {
    const Before all = block_scan({0, s.first.mass(threadIdx.x)}, s.totals);
    kept = s.totals[31].mass;
    __syncthreads();
  }
  const u64 target = __umul64hi(s.bits << 11, kept);
  const Found drawn = find_weight(s, row, [=](Before b) { return b.mass > target; });
  const u64 index = (target - drawn.before.mass) / (drawn.mass / drawn.count);
  return tied_token(s, row, drawn.digits, static_cast<u32>(index));
}

// Bias, penalties, forbidden ends, in this order, each rounded as the CPU rounds it. Where the row is
// scored the logit from before takes the place of the bias.
__device__ inline void change_logits(const SampleParams& p, const SampleRow& set, f32* logits,
                                     u32 end) {
  for (u32 i = set.changes + threadIdx.x; i < end; i += blockDim.x) {
    const LogitChange change = pointer<const LogitChange>(p.changes)[i];
    if (change.token >= p.vocab) continue;
    const f32 before = logits[change.token];
    if (set.scores) pointer<LogitChange>(p.changes)[i].bias = before;
    f32 x = __fadd_rn(before, change.bias);
    if (change.count > 0) {
      x = x > 0.0f ? __fdiv_rn(x, set.repetition) : __fmul_rn(x, set.repetition);
      const f32 often = __fmul_rn(static_cast<f32>(change.count), set.frequency);
      x = __fsub_rn(x, __fadd_rn(often, set.presence));
    }
    logits[change.token] = change.forbidden ? -INFINITY : x;
  }
}

// Log-probabilities are those of the logits as they came.
__device__ inline void take_back(const SampleParams& p, const SampleRow& set, f32* logits,
                                 u32 end) {
  __syncthreads();
  for (u32 i = set.changes + threadIdx.x; i < end; i += blockDim.x) {
    const LogitChange change = pointer<const LogitChange>(p.changes)[i];
    if (change.token < p.vocab) logits[change.token] = change.bias;
  }
}

__device__ inline void sample(const SampleParams& p) {
  __shared__ Shared s;
  grid_dependency_wait();
  const SampleRow* settings = pointer<const SampleRow>(p.settings) + blockIdx.x;
  const SampleRow& set = *settings;
  if (set.kind != 0) {
    if (threadIdx.x == 0) pointer<u32>(p.tokens)[blockIdx.x] = set.kind == 1 ? set.given : 0;
    return;
  }
  f32* logits = pointer<f32>(p.logits) + static_cast<u64>(blockIdx.x) * p.stride;
  change_logits(p, set, logits, settings[1].changes);
  __syncthreads();
  f32 most;
  u32 token = argmax(s, logits, p.vocab, most);
  if (set.temperature > 0.0f && fabsf(most) < INFINITY) {
    Row row = {logits, p.vocab, most, 1.0f / set.temperature, 0.0f};
    if (threadIdx.x == 0)
      s.bits = philox_bits(set.seed_low, set.seed_high, set.choice, set.position);
    __syncthreads();
    if (set.top_k == 0 && set.top_p >= 1.0f && set.min_p <= 0.0f) {
      token = draw_by_id(s, row);
    } else {
      u64 total = 0;
      if (set.top_p < 1.0f) {
        Before own = {0, 0};
        for (u32 id = threadIdx.x; id < p.vocab; id += blockDim.x)
          own.mass += mass_of(row.weight(id));
        block_scan(own, s.totals);
        total = s.totals[31].mass;
        __syncthreads();
      }
      row.min_p = set.min_p;
      token = draw_by_weight(s, row, set, total);
    }
  }
  if (threadIdx.x == 0) pointer<u32>(p.tokens)[blockIdx.x] = token;
  if (set.scores) take_back(p, set, logits, settings[1].changes);
}
