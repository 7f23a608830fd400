// Backends with faults, for the tests of self-checks and of recovery: the reference under the name of another backend.

import type { Backend, Matrix, Value } from "../../js_bridge/engine/backend.ts";
import { EngineError } from "../../js_bridge/engine/errors.ts";
import { ReferenceBackend } from "../../js_bridge/kernels/reference.ts";

/** Loses all that is in it when told, as a graphics context does; each opening is a fresh one. */
export class Losable {
  openings = 0;
  /** Why it does not open any more. */
  refusal: string | null = null;
  #lose: () => void = () => undefined;

  readonly open = async (onLost: () => void): Promise<Backend> => {
    if (this.refusal !== null) throw new EngineError("BackendUnavailable", this.refusal);
    const backend = new LosableBackend();
    this.openings++;
    this.#lose = () => {
      backend.isLost = true;
      onLost();
    };
    return named(backend, "webgl");
  };

  /** In the middle of whatever runs: before its next kernel. */
  lose(): void {
    this.#lose();
  }
}

class LosableBackend extends ReferenceBackend {
  isLost = false;

  protected override room(bytes: number) {
    this.#check();
    return super.room(bytes);
  }

  protected override view(value: Value): Float32Array {
    this.#check();
    return super.view(value);
  }

  #check(): void {
    if (this.isLost) throw new EngineError("ContextLost", "the context is gone", { retriable: true });
  }
}

/** Its products are wrong in one number by a hundredth of the largest. */
class WrongBackend extends ReferenceBackend {
  override product(x: Value, matrix: Matrix, bias: Value | null): Value {
    const result = super.product(x, matrix, bias);
    const numbers = this.view(result);
    numbers[numbers.length - 1] += 0.01 * Math.max(...numbers.map(Math.abs));
    return result;
  }
}

export async function openWrong(): Promise<Backend> {
  return named(new WrongBackend(), "wasm");
}

function named(backend: ReferenceBackend, name: Backend["name"]): Backend {
  return Object.defineProperty(backend, "name", { value: name });
}
