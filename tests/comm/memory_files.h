// A FileSystem in memory that remembers what was synced, for crash tests: it fails or crashes at the k-th
// operation that changes something, and then forgets what a kill or a power loss would take away.
#pragma once
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "comm/storage/file_system.h"

namespace tessera {

/// Thrown out of the operation at which the machine dies.
struct Crash {};

class MemoryFiles final : public FileSystem {
 public:
  /// What the k-th changing operation (1, 2, ...) does. 0: never.
  std::uint64_t crash_at = 0;  ///< half of it happens (a torn write), then everything stops
  std::uint64_t fail_at = 0;   ///< half of it happens, then it reports "disk full"
  std::uint64_t operations() const { return operations_; }

  enum class Loss {
    nothing,   ///< kill -9: the kernel has it all
    unsynced,  ///< power loss: nothing that was not synced survives
    random,    ///< power loss: of each unsynced thing a random part survives
  };
  /// The machine comes back.
  void restart(Loss loss, KeyedRandom& random) {
    crash_at = fail_at = operations_ = 0;
    dead_ = false;
    if (loss != Loss::nothing) forget(*root_, loss, random);
  }
  /// Long enough passes: all that was written so far is durable.
  void settle() {
    operations_ = 0;
    make_durable(*root_);
  }
  /// Twins with the same content (before and after a crash are compared).
  std::unique_ptr<MemoryFiles> copy() const {
    auto twin = std::make_unique<MemoryFiles>();
    std::map<const Node*, std::shared_ptr<Node>> copies;
    twin->root_ = copy_node(root_, copies);
    return twin;
  }
  /// A file's bytes, to damage them; null when there is none.
  std::string* content(const Path& path) {
    Node* node = find(path);
    return node == nullptr || node->is_folder ? nullptr : &node->data;
  }

  Status write_new(const Path& path, std::span<const Bytes> parts, Durability durability) override {
    std::string data;
    for (Bytes part : parts) data.append(reinterpret_cast<const char*>(part.data()), part.size());
    Node* parent = find(path.parent_path());
    if (parent == nullptr) return storage_error("cannot create", path, ENOENT);
    if (parent->now.count(path.filename()) > 0) return storage_error("cannot create", path, EEXIST);
    auto node = std::make_shared<Node>();
    Status done = change(path, [&](bool half) {
      parent->now[path.filename()] = node;
      node->data = half ? data.substr(0, data.size() / 2) : data;
    });
    if (done.ok() && durability == Durability::machine) {
      done = change(path, [&](bool half) {
        if (!half) node->synced = node->data;
      });
    }
    if (!done.ok()) parent->now.erase(path.filename());
    return done;
  }

  Status rename(const Path& from, const Path& to) override {
    Node* source = find(from.parent_path());
    Node* target = find(to.parent_path());
    if (source == nullptr || target == nullptr || source->now.count(from.filename()) == 0) {
      return storage_error("cannot rename to", to, ENOENT);
    }
    Node* old = find(to);
    if (old != nullptr && old->is_folder && !old->now.empty())
      return storage_error("cannot rename to", to, ENOTEMPTY);
    return change(to, [&](bool half) {
      if (half) return;
      auto node = source->now[from.filename()];
      source->now.erase(from.filename());
      target->now[to.filename()] = node;
    });
  }

  Status sync_folder(const Path& folder) override {
    Node* node = find(folder);
    if (node == nullptr) return storage_error("cannot sync folder", folder, ENOENT);
    return change(folder, [&](bool half) {
      if (!half) node->durable = node->now;
    });
  }

  Status make_folder(const Path& folder) override {
    if (find(folder) != nullptr) return {};
    if (folder.has_parent_path() && folder.parent_path() != folder)
      TESSERA_TRY(make_folder(folder.parent_path()));
    return change(folder, [&](bool half) {
      if (half) return;
      auto node = std::make_shared<Node>();
      node->is_folder = true;
      find(folder.parent_path())->now[folder.filename()] = node;
    });
  }

  Status remove(const Path& path) override {
    Node* node = find(path);
    if (node == nullptr) return {};
    if (node->is_folder && !node->now.empty()) return storage_error("cannot remove", path, ENOTEMPTY);
    return change(path, [&](bool half) {
      if (!half) find(path.parent_path())->now.erase(path.filename());
    });
  }

  Status truncate(const Path& path, std::uint64_t size) override {
    Node* node = find(path);
    if (node == nullptr) return storage_error("cannot cut", path, ENOENT);
    return change(path, [&](bool half) {
      node->data.resize(size);
      if (!half) node->synced = node->data;
    });
  }

  Result<std::unique_ptr<AppendFile>> open_append(const Path& path) override {
    Node* parent = find(path.parent_path());
    if (parent == nullptr) return storage_error("cannot open", path, ENOENT);
    if (parent->now.count(path.filename()) == 0) {
      TESSERA_TRY(change(path, [&](bool half) {
        if (!half) parent->now[path.filename()] = std::make_shared<Node>();
      }));
    }
    return std::unique_ptr<AppendFile>(std::make_unique<Appender>(*this, parent->now[path.filename()], path));
  }

  Result<Buffer> read_file(const Path& path, std::uint64_t max_bytes) const override {
    const Node* node = find(path);
    if (node == nullptr || node->is_folder) return storage_error("cannot open", path, ENOENT);
    if (node->data.size() > max_bytes) return storage_error("cannot read", path, EFBIG);
    return Buffer::copy_of(std::as_bytes(std::span(node->data)));
  }

  Result<std::vector<FolderEntry>> list_folder(const Path& folder) const override {
    const Node* node = find(folder);
    if (node == nullptr || !node->is_folder) return storage_error("cannot open folder", folder, ENOENT);
    std::vector<FolderEntry> entries;
    for (const auto& [name, child] : node->now) entries.push_back({name, child->is_folder});
    return entries;
  }

  bool exists(const Path& path) const override { return find(path) != nullptr; }

 private:
  struct Node {
    bool is_folder = false;
    std::string data, synced;                                   ///< of a file: as written, as synced
    std::map<std::string, std::shared_ptr<Node>> now, durable;  ///< of a folder: its names
  };

  class Appender final : public AppendFile {
   public:
    Appender(MemoryFiles& files, std::shared_ptr<Node> node, Path path)
        : files_(files), node_(std::move(node)), path_(std::move(path)) {}
    Status append(Bytes bytes) override {
      const std::string data(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return files_.change(path_,
                           [&](bool half) { node_->data += half ? data.substr(0, data.size() / 2) : data; });
    }
    Status sync() override {
      return files_.change(path_, [&](bool half) {
        if (!half) node_->synced = node_->data;
      });
    }

   private:
    MemoryFiles& files_;
    std::shared_ptr<Node> node_;
    Path path_;
  };

  template <class Action>
  Status change(const Path& path, const Action& action) {
    if (dead_) return storage_error("machine is down", path, EIO);
    ++operations_;
    const bool crash = operations_ == crash_at;
    const bool fails = operations_ == fail_at;
    action(crash || fails);
    if (crash) {
      dead_ = true;
      throw Crash();
    }
    return fails ? Status(storage_error("cannot write", path, ENOSPC)) : Status();
  }

  static void make_durable(Node& node) {
    node.synced = node.data;
    node.durable = node.now;
    for (auto& [name, child] : node.now) make_durable(*child);
  }

  static std::string torn(const Node& node, KeyedRandom& random) {
    // What was synced stays, of what came after it a prefix, and perhaps zeros where the data did not make
    // it.
    if (node.data.size() <= node.synced.size()) return random.chance(0.5) ? node.data : node.synced;
    const std::size_t kept = node.synced.size() + random.below(node.data.size() - node.synced.size() + 1);
    std::string data = node.synced + node.data.substr(node.synced.size(), kept - node.synced.size());
    if (random.chance(0.3)) data.resize(node.data.size(), '\0');
    return data;
  }

  static void forget(Node& node, Loss loss, KeyedRandom& random) {
    if (!node.is_folder) {
      node.data = node.synced = loss == Loss::unsynced ? node.synced : torn(node, random);
      return;
    }
    auto entries = node.durable;
    if (loss == Loss::random) {
      auto names = node.durable;
      names.insert(node.now.begin(), node.now.end());
      for (const auto& [name, child] : names) {
        if (random.chance(0.5)) continue;
        const auto written = node.now.find(name);
        if (written == node.now.end())
          entries.erase(name);
        else
          entries[name] = written->second;
      }
    }
    node.now = node.durable = std::move(entries);
    for (auto& [name, child] : node.now) forget(*child, loss, random);
  }

  static std::shared_ptr<Node> copy_node(const std::shared_ptr<Node>& node,
                                         std::map<const Node*, std::shared_ptr<Node>>& copies) {
    auto& copy = copies[node.get()];
    if (copy != nullptr) return copy;
    copy = std::make_shared<Node>(*node);
    const std::shared_ptr<Node> result = copy;
    for (auto& [name, child] : result->now) child = copy_node(child, copies);
    for (auto& [name, child] : result->durable) child = copy_node(child, copies);
    return result;
  }

  Node* find(const Path& path) const {
    Node* node = root_.get();
    for (const Path& part : path.relative_path()) {
      if (part.empty()) continue;
      const auto child = node->now.find(part.string());
      if (child == node->now.end()) return nullptr;
      node = child->second.get();
    }
    return node;
  }

  std::shared_ptr<Node> root_ = [] {
    auto root = std::make_shared<Node>();
    root->is_folder = true;
    return root;
  }();
  std::uint64_t operations_ = 0;
  bool dead_ = false;
};

}  // namespace tessera
