# Wire form of everything that travels between coordinator and workers. Plain structs: comm/messages.h (what each message
# means) and comm/transport/bulk_frames.h. Converted, and checked, only in comm/message_codec.cpp.
@0xd3a1c6f0b5e24987;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("tessera::wire");

struct Bits128 { high @0 :UInt64; low @1 :UInt64; }

struct Header {
  job @0 :Bits128;
  epoch @1 :UInt64;
  incarnation @2 :Bits128;
  sequence @3 :UInt64;
}

struct MergeKey { slot @0 :Int32; fragment @1 :Int32; version @2 :Int64; attempt @3 :Int32; }
struct BlobRef { digest @0 :Bits128; size @1 :UInt64; path @2 :Text; }
struct Rows { begin @0 :Int64; end @1 :Int64; }
struct ParamRows { name @0 :Text; rows @1 :List(Rows); }

# ---- worker to coordinator

struct SlotLease { slot @0 :Int32; attempt @1 :Int32; }  # a held slot, and Revoke
struct Hello {
  build @0 :Text;
  host @1 :Text;
  pid @2 :Int64;
  capacity @3 :Int32;
  recipe @4 :Bits128;
  held @5 :List(SlotLease);
}
struct Ready { data @0 :Bits128; numerics @1 :Text; }
struct KnownVersion { fragment @0 :Int32; version @1 :Int64; }
struct Heartbeat { steps @0 :UInt64; held @1 :List(SlotLease); heads @2 :List(KnownVersion); }
struct Work {
  steps @0 :UInt64;
  units @1 :Float64;
  lossSum @2 :Float64;
  lossWeight @3 :Float64;
  firstSample @4 :UInt64;
  endSample @5 :UInt64;
  computeSeconds @6 :Float64;
  encodeSeconds @7 :Float64;
  waitSeconds @8 :Float64;
  gradNorm @9 :Float64;
  flops @10 :Float64;
  flopsUncut @11 :Float64;
}
struct Offer {
  key @0 :MergeKey;
  contribution @1 :BlobRef;
  slotState @2 :Bits128;
  slotStateBlob @3 :BlobRef;  # absent: none
  work @4 :Work;
}
struct Evaluated {
  version @0 :Int64;
  lossSum @1 :Float64;
  weight @2 :Float64;
  bytes @3 :Float64;
  words @4 :Float64;
}
struct GrantFailed { slot @0 :Int32; attempt @1 :Int32; reason @2 :Text; }
struct Leave { reason @0 :Text; }

# ---- coordinator to worker

struct Welcome { recipe @0 :Text; leaseMs @1 :Int64; }
struct Verdict { reason @0 :Text; code @1 :Int32; }  # Refused, Stop
struct FragmentHead {
  fragment @0 :Int32;
  version @1 :Int64;
  parameters @2 :BlobRef;
  stateHash @3 :Bits128;
  fast @4 :BlobRef;  # absent: none
  update @5 :BlobRef;  # absent: none
  base @6 :Bits128;    # of the update
}
struct Grant {
  slot @0 :Int32;
  attempt @1 :Int32;
  owned @2 :List(ParamRows);
  heads @3 :List(FragmentHead);
  slotState @4 :Bits128;
  slotStateBlob @5 :BlobRef;  # absent: none
  evaluate @6 :Bool;
  saveState @7 :Bool;
  steps @8 :Int64;
}
struct Publish { head @0 :FragmentHead; last @1 :Bool; evaluate @2 :Bool; saveState @3 :Bool; }
struct Taken { key @0 :MergeKey; digest @1 :Bits128; steps @2 :Int64; }
struct Rejected { key @0 :MergeKey; tensor @1 :Text; reason @2 :Text; retry @3 :Bool; }
struct HeartbeatAck { sayHello @0 :Bool; }

# ---- bulk path, both ways; a chunk's bytes follow their header as a raw part of the same message

struct ChunkRequest { blob @0 :Bits128; index @1 :UInt64; }
struct ChunkHeader { blob @0 :Bits128; index @1 :UInt64; known @2 :Bool; size @3 :UInt64; checksum @4 :UInt64; }

struct Frame {
  protocol @0 :UInt32;  # a change that old readers would misread gets a new number
  header @1 :Header;
  union {
    hello @2 :Hello;
    ready @3 :Ready;
    heartbeat @4 :Heartbeat;
    offer @5 :Offer;
    evaluated @6 :Evaluated;
    grantFailed @7 :GrantFailed;
    leave @8 :Leave;
    welcome @9 :Welcome;
    refused @10 :Verdict;
    grant @11 :Grant;
    publish @12 :Publish;
    taken @13 :Taken;
    rejected @14 :Rejected;
    revoke @15 :SlotLease;
    heartbeatAck @16 :HeartbeatAck;
    stop @17 :Verdict;
    chunkRequest @18 :ChunkRequest;
    chunkHeader @19 :ChunkHeader;
  }
}
