// A WebGL2 context as a machine for arrays: folded textures, programs, draws, read-back. It knows no kernels.
//
// A tensor of rows × columns lies in one RGBA32F texture: each row takes ⌈columns/4⌉ texels, the texels of all rows
// follow one another, and that line is folded to a width of 2^shift. The numbers beyond a row's last column are 0.
//
// State that WebGL keeps is not set twice: each program remembers its uniforms, the context its bindings.

import { EngineError } from "../engine/errors.ts";

export interface Texture {
  readonly texture: WebGLTexture;
  /** Null: nothing is drawn into it. */
  readonly framebuffer: WebGLFramebuffer | null;
  readonly shift: number;
  readonly width: number;
  readonly height: number;
  /** 1, or of an array texture that a draw writes at once */
  readonly layers: number;
  readonly bytes: number;
}

export type UniformValue = number | readonly number[];

interface Uniform {
  readonly location: WebGLUniformLocation;
  readonly type: number;
  last: UniformValue | null;
}

export interface Program {
  readonly program: WebGLProgram;
  readonly uniforms: ReadonlyMap<string, Uniform>;
}

/** Rows of the target from `top` up to `bottom`. */
export interface Band {
  readonly top: number;
  readonly bottom: number;
}

/** Beyond it browsers lose the context without a word. */
export const MAX_TEXTURE_BYTES = 2 ** 28;
/** Free textures kept for the next tensor of their size. */
const MAX_POOL_BYTES = 2 ** 28;

const VERTEX = `#version 300 es
void main() {
  vec2 corner = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

export class WebglContext {
  readonly gl: WebGL2RenderingContext;
  readonly maxSize: number;
  readonly drawBuffers: number;
  /** As the driver names itself: what measurements are remembered under. */
  readonly gpu: string;
  /** Since the context was made. */
  draws = 0;
  readonly #onLost: () => void;
  readonly #programs = new Map<string, Program>();
  readonly #pool = new Map<string, Texture[]>();
  readonly #bound: (WebGLTexture | null)[] = [];
  #activeUnit = -1;
  #program: WebGLProgram | null = null;
  #framebuffer: WebGLFramebuffer | null = null;
  #pooledBytes = 0;
  #isLost = false;

  /** Fails: BackendUnavailable without WebGL2 or float render targets. */
  constructor(onLost: () => void) {
    this.#onLost = onLost;
    const canvas = newCanvas();
    const gl = canvas?.getContext("webgl2", {
      antialias: false,
      depth: false,
      alpha: false,
      powerPreference: "high-performance",
    }) as WebGL2RenderingContext | null;
    if (canvas === null || gl === null || gl === undefined) throw unavailable("WebGL2 is missing here");
    if (gl.getExtension("EXT_color_buffer_float") === null)
      throw unavailable("this GPU can't render to float32 textures (EXT_color_buffer_float)");
    canvas.addEventListener("webglcontextlost", () => this.#lose());
    gl.disable(gl.DITHER);
    gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.BLEND);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.gl = gl;
    this.maxSize = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;
    this.drawBuffers = gl.getParameter(gl.MAX_DRAW_BUFFERS) as number;
    const names = gl.getExtension("WEBGL_debug_renderer_info");
    this.gpu = String(gl.getParameter(names === null ? gl.RENDERER : names.UNMASKED_RENDERER_WEBGL));
  }

  /** Fails: ContextLost. */
  check(): void {
    if (!this.#isLost && !this.gl.isContextLost()) return;
    this.#lose();
    throw new EngineError(
      "ContextLost",
      "The browser took the graphics context away, and every tensor in it is gone; run the pass again: the weights are then uploaded anew",
      { backend: "webgl", retriable: true },
    );
  }

  /** The event, or the first call that notices; told once, after what is running now has ended. */
  #lose(): void {
    if (this.#isLost) return;
    this.#isLost = true;
    queueMicrotask(this.#onLost);
  }

  /** To draw so many texels in a line into; what is in it is undefined. Fails: BadParameter where it is too large. */
  lineTexture(texels: number, layers = 1): Texture {
    let shift = Math.max(0, Math.ceil(Math.log2(Math.sqrt(texels))));
    while (2 ** shift > this.maxSize) shift--;
    const width = 2 ** shift;
    const height = rounded(Math.ceil(texels / width));
    const bytes = 16 * width * height * layers;
    if (width > this.maxSize || height > this.maxSize || bytes > MAX_TEXTURE_BYTES) {
      throw new EngineError(
        "BadParameter",
        `A texture of ${width} x ${height} x ${layers} (${bytes} bytes): at most ${this.maxSize} a side and ${MAX_TEXTURE_BYTES} bytes are allowed; run a smaller batch, or backend wasm`,
      );
    }
    const pooled = this.#pool.get(keyOf(width, height, layers))?.pop();
    if (pooled !== undefined) {
      this.#pooledBytes -= bytes;
      return pooled;
    }
    return this.#newTarget(shift, height, layers);
  }

  recycle(texture: Texture): void {
    if (this.#isLost) return;
    if (this.#pooledBytes + texture.bytes > MAX_POOL_BYTES) this.#emptyPool();
    this.#pooledBytes += texture.bytes;
    const key = keyOf(texture.width, texture.height, texture.layers);
    const pool = this.#pool.get(key);
    if (pool === undefined) this.#pool.set(key, [texture]);
    else pool.push(texture);
  }

  delete({ texture, framebuffer }: Texture): void {
    for (const [unit, bound] of this.#bound.entries()) if (bound === texture) this.#bound[unit] = null;
    if (framebuffer !== null && framebuffer === this.#framebuffer) this.#framebuffer = null;
    this.gl.deleteFramebuffer(framebuffer);
    this.gl.deleteTexture(texture);
  }

  /** Lets go of every free texture: sizes that nobody asked for lately must not fill the pool for good. */
  #emptyPool(): void {
    for (const pool of this.#pool.values()) for (const texture of pool) this.delete(texture);
    this.#pool.clear();
    this.#pooledBytes = 0;
  }

  #newTarget(shift: number, height: number, layers: number): Texture {
    const { gl } = this;
    const width = 2 ** shift;
    const target = layers === 1 ? gl.TEXTURE_2D : gl.TEXTURE_2D_ARRAY;
    const texture = this.#newTexture(target, gl.RGBA32F, width, height, layers);
    const framebuffer = gl.createFramebuffer();
    this.#bindFramebuffer(framebuffer);
    const attachments: number[] = [];
    for (let layer = 0; layer < layers; layer++) {
      const attachment = gl.COLOR_ATTACHMENT0 + layer;
      if (layers === 1) gl.framebufferTexture2D(gl.FRAMEBUFFER, attachment, gl.TEXTURE_2D, texture, 0);
      else gl.framebufferTextureLayer(gl.FRAMEBUFFER, attachment, texture, 0, layer);
      attachments.push(attachment);
    }
    gl.drawBuffers(attachments);
    const bytes = 16 * width * height * layers;
    return { texture, framebuffer, shift, width, height, layers, bytes };
  }

  /** To read from in shaders: RGBA32F, or RGBA32UI for packed integers. All 0 at first. */
  weightTexture(width: number, height: number, format: "RGBA32F" | "RGBA32UI"): Texture {
    this.check();
    const texture = this.#newTexture(this.gl.TEXTURE_2D, this.gl[format], width, height, 1);
    return { texture, framebuffer: null, shift: 0, width, height, layers: 1, bytes: 16 * width * height };
  }

  #newTexture(target: number, format: number, width: number, height: number, layers: number): WebGLTexture {
    const { gl } = this;
    const texture = gl.createTexture();
    if (texture === null) this.check();
    this.#bind(0, target, texture);
    if (target === gl.TEXTURE_2D) gl.texStorage2D(target, 1, format, width, height);
    else gl.texStorage3D(target, 1, format, width, height, layers);
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    return texture;
  }

  /** Writes a rectangle of texels, rows one after another. Fails: ContextLost. */
  write({ texture }: Texture, x: number, y: number, width: number, height: number, texels: ArrayBufferView): void {
    const { gl } = this;
    this.check();
    this.#bind(0, gl.TEXTURE_2D, texture);
    const [format, type] = texels instanceof Uint32Array ? [gl.RGBA_INTEGER, gl.UNSIGNED_INT] : [gl.RGBA, gl.FLOAT];
    gl.texSubImage2D(gl.TEXTURE_2D, 0, x, y, width, height, format, type, texels);
  }

  /** The first rows of texels; waits for every draw before it. Fails: ContextLost. */
  read({ framebuffer, width }: Texture, height: number): Float32Array {
    const { gl } = this;
    const texels = new Float32Array(4 * width * height);
    this.#bindFramebuffer(framebuffer);
    gl.readBuffer(gl.COLOR_ATTACHMENT0);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, texels);
    this.check();
    return texels;
  }

  /** Compiled once per source; texture unit i is the sampler `samplers[i]`. */
  program(source: string, samplers: readonly string[]): Program {
    const known = this.#programs.get(source);
    if (known !== undefined) return known;
    const { gl } = this;
    this.check();
    const program = gl.createProgram();
    const shaders = (
      [
        [gl.VERTEX_SHADER, VERTEX],
        [gl.FRAGMENT_SHADER, source],
      ] as const
    ).map(([kind, text]) => {
      const shader = gl.createShader(kind) as WebGLShader;
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      return shader;
    });
    gl.linkProgram(program);
    if (gl.getProgramParameter(program, gl.LINK_STATUS) !== true) {
      this.check();
      const logs = shaders.map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`a shader does not link: ${[gl.getProgramInfoLog(program), ...logs].join("\n")}\n${source}`);
    }
    for (const shader of shaders) gl.deleteShader(shader);
    this.#use(program);
    for (const [unit, name] of samplers.entries()) gl.uniform1i(gl.getUniformLocation(program, name), unit);
    const made = { program, uniforms: this.#uniformsOf(program) };
    this.#programs.set(source, made);
    return made;
  }

  #uniformsOf(program: WebGLProgram): Map<string, Uniform> {
    const { gl } = this;
    const uniforms = new Map<string, Uniform>();
    const count = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) as number;
    for (let i = 0; i < count; i++) {
      const active = gl.getActiveUniform(program, i);
      const location = active === null ? null : gl.getUniformLocation(program, active.name);
      if (active === null || location === null) continue;
      uniforms.set(active.name.replace("[0]", ""), { location, type: active.type, last: null });
    }
    return uniforms;
  }

  /** Runs a program over the texels of the target, or a band of them. Uniforms that the program lacks are left out. */
  draw(
    { program, uniforms }: Program,
    target: Texture,
    band: Band,
    textures: readonly Texture[],
    values: Readonly<Record<string, UniformValue>>,
  ): void {
    const { gl } = this;
    this.check();
    this.#use(program);
    for (const name in values) {
      const uniform = uniforms.get(name);
      if (uniform !== undefined) this.#set(uniform, values[name]);
    }
    for (const [unit, texture] of textures.entries()) {
      this.#bind(unit, texture.layers === 1 ? gl.TEXTURE_2D : gl.TEXTURE_2D_ARRAY, texture.texture);
    }
    this.#bindFramebuffer(target.framebuffer);
    gl.viewport(0, band.top, target.width, band.bottom - band.top);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    this.draws++;
  }

  #set(uniform: Uniform, value: UniformValue): void {
    if (sameValue(uniform.last, value)) return;
    const { gl } = this;
    const { location, type } = uniform;
    uniform.last = value;
    if (typeof value === "number") {
      if (type === gl.FLOAT) gl.uniform1f(location, value);
      else gl.uniform1i(location, value);
    } else if (type === gl.INT_VEC4) gl.uniform4iv(location, value as number[]);
    else gl.uniform1iv(location, value as number[]);
  }

  #use(program: WebGLProgram): void {
    if (this.#program === program) return;
    this.#program = program;
    this.gl.useProgram(program);
  }

  #bindFramebuffer(framebuffer: WebGLFramebuffer | null): void {
    if (this.#framebuffer === framebuffer) return;
    this.#framebuffer = framebuffer;
    this.gl.bindFramebuffer(this.gl.FRAMEBUFFER, framebuffer);
  }

  #bind(unit: number, target: number, texture: WebGLTexture): void {
    if (this.#bound[unit] === texture && this.#activeUnit === unit) return;
    const { gl } = this;
    if (this.#activeUnit !== unit) {
      this.#activeUnit = unit;
      gl.activeTexture(gl.TEXTURE0 + unit);
    }
    if (this.#bound[unit] === texture) return;
    this.#bound[unit] = texture;
    gl.bindTexture(target, texture);
  }
}

/** A height rounded up to four significant bits, so that tensors of nearly the same size share the pool's textures. */
function rounded(height: number): number {
  const step = 2 ** Math.max(0, Math.floor(Math.log2(height)) - 3);
  return Math.ceil(height / step) * step;
}

function sameValue(a: UniformValue | null, b: UniformValue): boolean {
  if (a === b) return true;
  if (a === null || typeof a === "number" || typeof b === "number" || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function keyOf(width: number, height: number, layers: number): string {
  return `${width} ${height} ${layers}`;
}

function newCanvas(): OffscreenCanvas | HTMLCanvasElement | null {
  if (globalThis.OffscreenCanvas !== undefined) return new OffscreenCanvas(1, 1);
  return globalThis.document?.createElement("canvas") ?? null;
}

function unavailable(text: string): EngineError {
  return new EngineError("BackendUnavailable", `Backend webgl: ${text}; use wasm or reference`, { backend: "webgl" });
}
