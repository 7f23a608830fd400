import type { Backend } from "../engine/backend.ts"
import { EngineError } from "../engine/errors.ts"
export function openWebglBackend(_onLost: () => void): Backend {
  throw new EngineError("BackendUnavailable", "WebGL2 is missing here", { backend: "webgl" })
}
