// The messages between the image's mailbox and the engine: types only, no code. Start reading here.
// A message is a JSON object with `kind`, beside it a list of binary attachments; what each attachment is stands
// at the kind that has it.
//
//   image ── request ────────────────► engine    its one answer repeats its `id`; a request without `id` has no answer
//   image ◄── event … event, answer ── engine    events come while a request runs; a few by themselves (engine, error)
//   image ◄── failed ───────────────── engine    the answer to any request that went wrong, with its error
//
//   { kind: "load", id: 1, bundle, … }                     ►
//                                                          ◄  progress…, { kind: "loaded", id: 1, model: 1, … }
//   { kind: "forward", id: 2, pass: 1, hooks: [name], … }  ►
//                                                          ◄  { kind: "hook", pass: 1, name, tensor: -1, … }
//   { kind: "hookAnswer", pass: 1, replacement: null }     ►
//                                                          ◄  { kind: "done", id: 2, pass: 1, … }
//
// Each file of protocol/ holds what is said about one thing, a request beside its answer:
//
//   model, tokenizer          a loaded model, and its text as token ids
//   pass, intervention        one pass through it, and what happens at its hook points
//   generation                passes that make text
//   tensor, operation         what passes leave behind, and computing with it
//   parity, storage, lab      reference numbers, kept weights, models that run elsewhere
//   engine, error             the engine about itself, and all that can go wrong
//   names                     the names that the others share
//
// Tensors are named by integers: the image names its own (positive, never reused), the engine names the values that
// it shows at hooks (negative). A tensor never changes: every operation makes a new one. Whoever holds a name lets go
// of it with `release`; that includes the tensor of a `hook` event whose pass the image has already forgotten.
//
// Positions, wherever a message names them (captures, regions, logits), are absolute: 0 is the first token of the
// sequence, also where a cache holds it; negative ones count from the end of the sequence as far as the pass goes.
//
// Numbers that JSON lacks (infinities, NaN) are null in a message and themselves in an attachment.

import type * as model from "./protocol/model.ts";
import type * as tokenizer from "./protocol/tokenizer.ts";
import type * as pass from "./protocol/pass.ts";
import type * as generation from "./protocol/generation.ts";
import type * as tensor from "./protocol/tensor.ts";
import type * as parity from "./protocol/parity.ts";
import type * as storage from "./protocol/storage.ts";
import type * as lab from "./protocol/lab.ts";
import type * as engine from "./protocol/engine.ts";
import type * as error from "./protocol/error.ts";

export type * from "./protocol/model.ts";
export type * from "./protocol/tokenizer.ts";
export type * from "./protocol/pass.ts";
export type * from "./protocol/intervention.ts";
export type * from "./protocol/generation.ts";
export type * from "./protocol/tensor.ts";
export type * from "./protocol/operation.ts";
export type * from "./protocol/parity.ts";
export type * from "./protocol/storage.ts";
export type * from "./protocol/lab.ts";
export type * from "./protocol/engine.ts";
export type * from "./protocol/error.ts";
export type * from "./protocol/names.ts";

/** From the image to the engine. */
export type Request =
  | model.LoadRequest
  | model.CancelLoadRequest
  | model.UnloadRequest
  | tokenizer.EncodeRequest
  | tokenizer.DecodeRequest
  | tokenizer.ChatRequest
  | pass.ForwardRequest
  | pass.HookAnswer
  | pass.CancelRequest
  | pass.CreateCacheRequest
  | pass.ReleaseCacheRequest
  | pass.ForecastRequest
  | generation.GenerateRequest
  | tensor.CreateRequest
  | tensor.OperateRequest
  | tensor.GradientRequest
  | tensor.ReadRequest
  | tensor.StatisticsRequest
  | tensor.TopKRequest
  | tensor.ReleaseRequest
  | parity.ParityRequest
  | parity.CancelParityRequest
  | storage.StorageRequest
  | storage.StorageBudgetRequest
  | storage.EvictRequest
  | lab.AskRequest
  | engine.BackendsRequest
  | engine.LedgerRequest
  | engine.SynchronizeRequest
  | engine.BenchmarkRequest;

/** From the engine to the image: answers, and events. */
export type Answer =
  | model.ProgressEvent
  | model.LoadedAnswer
  | model.UnloadedAnswer
  | tokenizer.EncodedAnswer
  | tokenizer.DecodedAnswer
  | tokenizer.ChattedAnswer
  | pass.DoneAnswer
  | pass.HookEvent
  | pass.ForecastAnswer
  | generation.TokenEvent
  | generation.GeneratedAnswer
  | tensor.NumbersAnswer
  | tensor.StatisticsAnswer
  | tensor.TopAnswer
  | parity.ParityAnswer
  | storage.StorageAnswer
  | lab.AskedAnswer
  | engine.BackendsAnswer
  | engine.LedgerAnswer
  | engine.SynchronizedAnswer
  | engine.BenchmarkedAnswer
  | engine.CollectEvent
  | engine.RestartedEvent
  | error.FailedAnswer
  | error.WarningEvent;
