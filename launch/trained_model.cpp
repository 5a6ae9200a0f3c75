#include "launch/trained_model.h"

#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/random.h"
#include "eval/sampler.h"
#include "eval/unigram.h"
#include "launch/stored.h"
#include "worker/numerics.h"
#include "worker/torch_bridge.h"

namespace tessera {
namespace {

constexpr std::uint64_t samples_per_batch = 16;
constexpr std::uint64_t generate_purpose = 0x67656e;

/// Calls `score` with each held-out batch and adds up units, bytes and words.
template <class Score>
TextScore over_held_out(const DataSource& source, std::int64_t batches, Score score) {
  TextScore sums;
  for (std::uint64_t index = 0; batches == 0 || index < static_cast<std::uint64_t>(batches); ++index) {
    const std::optional<Batch> batch = source.held_out(index, samples_per_batch);
    if (!batch) break;
    sums += {.nats = score(*batch), .units = batch->units, .bytes = batch->bytes, .words = batch->words};
  }
  return sums;
}

}  // namespace

Result<SavedParameters> load_parameters(const std::string& run_directory, std::optional<std::int64_t> round) {
  TESSERA_ASSIGN(Stored stored, open_stored(run_directory, round));
  const auto shard = stored.shards.find("parameters");
  if (!stored.version || shard == stored.shards.end()) {
    return fail(ExitCode::storage, stored.path, " is no checkpoint of a run: it has no shard of parameters");
  }
  return SavedParameters{{*stored.version}, std::move(shard->second)};
}

Result<TrainedModel> TrainedModel::make(std::shared_ptr<const Recipe> recipe,
                                        const std::string& data_folder) {
  // Nobody else computes now, unless whoever set OMP_NUM_THREADS knows better.
  const char* limit = std::getenv("OMP_NUM_THREADS");
  const int wanted = limit == nullptr ? 0 : std::atoi(limit);
  prepare_numerics(wanted > 0 ? wanted : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  TrainedModel trained;
  trained.recipe_ = recipe;
  TESSERA_ASSIGN(trained.data_, assemble_data(*recipe, data_folder));
  TESSERA_ASSIGN(trained.model_, assemble_model(*recipe, trained.data_.prepared.vocab));
  trained.params_ = std::make_shared<ParamStore>(trained.model_.specs);
  trained.model_.family->initialize(*trained.params_, static_cast<std::uint64_t>(recipe->seed));
  trained.objective_ = assemble_objective(*recipe);
  return trained;
}

Status TrainedModel::set_parameters(const TensorMap& parameters) {
  for (auto& [name, parameter] : params_->all()) {
    auto saved = parameters.find(name);
    if (saved == parameters.end() || saved->second.shape != parameter.spec.shape ||
        saved->second.dtype != DType::f32) {
      return fail(ExitCode::storage, "the checkpoint is of another model: it has no fp32 tensor '", name,
                  "' of the recipe's shape");
    }
    std::memcpy(parameter.full.mutable_data_ptr(), saved->second.bytes().data(),
                saved->second.bytes().size());
  }
  return {};
}

TextScore TrainedModel::evaluate(std::int64_t batches) const {
  at::NoGradGuard no_grad;
  return over_held_out(*data_.source, batches, [&](const Batch& batch) {
    const NamedTensors tensors = torch_views(batch.tensors);
    return (*objective_)(model_.family->forward(*params_, tensors), tensors).sum.item<double>();
  });
}

TextScore TrainedModel::evaluate_unigram(std::int64_t batches) const {
  const std::vector<std::uint64_t> counts = data_.source->token_counts();
  if (counts.empty()) return {};
  const UnigramBaseline unigram(counts);
  return over_held_out(*data_.source, batches, [&](const Batch& batch) {
    return unigram.nats(batch.tensors.at("targets").as<const std::int64_t>());
  });
}

Result<std::string> TrainedModel::generate(const std::function<void(std::string_view)>& say) const {
  at::NoGradGuard no_grad;
  const GenerateSettings& settings = recipe_->generate;
  TESSERA_ASSIGN(auto tokenizer, load_tokenizer(data_.prepared.tokenizer, data_.prepared.folder));
  std::vector<std::int32_t> ids = tokenizer->encode(settings.prompt);
  if (ids.empty())
    return fail(ExitCode::usage, "generate.prompt is empty; give at least one token to go on from");
  const auto context = static_cast<std::size_t>(model_.family->cost().context);
  if (say) say(settings.prompt);
  for (std::int64_t position = 0; position < settings.tokens; ++position) {
    const std::size_t length = std::min(ids.size(), context);
    const std::vector<std::int64_t> window(ids.end() - static_cast<std::ptrdiff_t>(length), ids.end());
    const HostTensor tokens =
        HostTensor::of<std::int64_t>(DType::i64, {1, static_cast<std::int64_t>(length)}, window);
    const at::Tensor logits = model_.family->forward(*params_, {{"tokens", torch_view(tokens)}}).at("logits");
    const HostTensor row = host_copy(logits.select(0, 0).select(0, static_cast<std::int64_t>(length) - 1));
    TESSERA_ASSIGN(const std::int32_t next,
                   sample_token(row.as<const float>(), settings,
                                key_of({static_cast<std::uint64_t>(settings.seed), generate_purpose,
                                        static_cast<std::uint64_t>(position)})));
    ids.push_back(next);
    if (say) say(tokenizer->surface(next));
  }
  return tokenizer->decode(ids);
}

}  // namespace tessera
