#include "comm/messages.h"

namespace tessera {

const char* message_name(const Message& message) {
  struct Names {
    const char* operator()(const Hello&) { return "Hello"; }
    const char* operator()(const Ready&) { return "Ready"; }
    const char* operator()(const Heartbeat&) { return "Heartbeat"; }
    const char* operator()(const Offer&) { return "Offer"; }
    const char* operator()(const Evaluated&) { return "Evaluated"; }
    const char* operator()(const GrantFailed&) { return "GrantFailed"; }
    const char* operator()(const Leave&) { return "Leave"; }
    const char* operator()(const Welcome&) { return "Welcome"; }
    const char* operator()(const Refused&) { return "Refused"; }
    const char* operator()(const Grant&) { return "Grant"; }
    const char* operator()(const Publish&) { return "Publish"; }
    const char* operator()(const Taken&) { return "Taken"; }
    const char* operator()(const Rejected&) { return "Rejected"; }
    const char* operator()(const Revoke&) { return "Revoke"; }
    const char* operator()(const HeartbeatAck&) { return "HeartbeatAck"; }
    const char* operator()(const Stop&) { return "Stop"; }
  };
  return std::visit(Names{}, message);
}

}  // namespace tessera
