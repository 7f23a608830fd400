// A WebGL2 context as a machine for arrays: folded float textures, programs, draws, read-back. It knows no kernels.
//
// A tensor of rows × columns lies in one RGBA32F texture: each row takes ⌈columns/4⌉ texels, the texels of all rows
// follow one another, and that line is folded to a width of 2^shift. The numbers beyond a row's last column are 0.

import { EngineError } from "../engine/errors.ts";

export interface Texture {
  readonly texture: WebGLTexture;
  readonly shift: number;
  readonly width: number;
  readonly height: number;
  /** 1, or of an array texture that a draw writes at once */
  readonly layers: number;
  readonly framebuffer: WebGLFramebuffer;
}

export interface Program {
  readonly program: WebGLProgram;
  readonly locations: Map<string, WebGLUniformLocation | null>;
}

/** Beyond it browsers lose the context without a word. */
const MAX_TEXTURE_BYTES = 2 ** 28;
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
  readonly #programs = new Map<string, Program>();
  readonly #pool = new Map<string, Texture[]>();
  #pooledBytes = 0;
  #isLost = false;

  /** Fails: BackendUnavailable without WebGL2 or float render targets. */
  constructor(onLost: () => void) {
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
    canvas.addEventListener("webglcontextlost", () => {
      this.#isLost = true;
      onLost();
    });
    gl.disable(gl.DITHER);
    gl.disable(gl.DEPTH_TEST);
    gl.disable(gl.BLEND);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    this.gl = gl;
    this.maxSize = gl.getParameter(gl.MAX_TEXTURE_SIZE) as number;
    this.drawBuffers = gl.getParameter(gl.MAX_DRAW_BUFFERS) as number;
  }

  /** Fails: ContextLost. */
  check(): void {
    if (this.#isLost || this.gl.isContextLost()) {
      throw new EngineError(
        "ContextLost",
        "The browser took the graphics context away, and every tensor and weight in it is gone; load the model again, or with backend wasm",
      );
    }
  }

  /** A texture for so many texels in a line; what is in it is undefined. Fails: BadParameter when it would be too large. */
  lineTexture(texels: number): Texture {
    let shift = Math.max(0, Math.ceil(Math.log2(Math.sqrt(texels))));
    while (2 ** shift > this.maxSize) shift--;
    const width = 2 ** shift;
    return this.texture(width, Math.ceil(texels / width), 1);
  }

  texture(width: number, height: number, layers: number): Texture {
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
    return this.#newTexture(width, height, layers);
  }

  recycle(texture: Texture): void {
    const bytes = 16 * texture.width * texture.height * texture.layers;
    if (this.#pooledBytes + bytes > MAX_POOL_BYTES) return this.delete(texture);
    this.#pooledBytes += bytes;
    const key = keyOf(texture.width, texture.height, texture.layers);
    const pool = this.#pool.get(key);
    if (pool === undefined) this.#pool.set(key, [texture]);
    else pool.push(texture);
  }

  delete({ texture, framebuffer }: Texture): void {
    this.gl.deleteFramebuffer(framebuffer);
    this.gl.deleteTexture(texture);
  }

  #newTexture(width: number, height: number, layers: number): Texture {
    const { gl } = this;
    const target = layers === 1 ? gl.TEXTURE_2D : gl.TEXTURE_2D_ARRAY;
    const texture = gl.createTexture();
    const framebuffer = gl.createFramebuffer();
    if (texture === null || framebuffer === null) this.check();
    gl.bindTexture(target, texture);
    if (layers === 1) gl.texStorage2D(target, 1, gl.RGBA32F, width, height);
    else gl.texStorage3D(target, 1, gl.RGBA32F, width, height, layers);
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    const attachments: number[] = [];
    for (let layer = 0; layer < layers; layer++) {
      const attachment = gl.COLOR_ATTACHMENT0 + layer;
      if (layers === 1) gl.framebufferTexture2D(gl.FRAMEBUFFER, attachment, gl.TEXTURE_2D, texture, 0);
      else gl.framebufferTextureLayer(gl.FRAMEBUFFER, attachment, texture, 0, layer);
      attachments.push(attachment);
    }
    gl.drawBuffers(attachments);
    return { texture, framebuffer, shift: Math.log2(width), width, height, layers };
  }

  /** Writes texels in rows of the texture, from the first. */
  write({ texture, width, height }: Texture, texels: Float32Array): void {
    const { gl } = this;
    this.check();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.FLOAT, texels);
  }

  /** All texels; waits for every draw before it. Fails: ContextLost. */
  read({ framebuffer, width, height }: Texture): Float32Array {
    const { gl } = this;
    const texels = new Float32Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.readBuffer(gl.COLOR_ATTACHMENT0);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, texels);
    this.check();
    return texels;
  }

  /** Compiled once per source. */
  program(source: string): Program {
    const known = this.#programs.get(source);
    if (known !== undefined) return known;
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, source],
    ] as const) {
      const shader = gl.createShader(kind) as WebGLShader;
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      gl.deleteShader(shader);
    }
    gl.linkProgram(program);
    if (gl.getProgramParameter(program, gl.LINK_STATUS) !== true) {
      this.check();
      const logs = (gl.getAttachedShaders(program) ?? []).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`a shader does not link: ${[gl.getProgramInfoLog(program), ...logs].join("\n")}\n${source}`);
    }
    const made = { program, locations: new Map<string, WebGLUniformLocation | null>() };
    this.#programs.set(source, made);
    return made;
  }

  /** Runs a program over every texel of the target. Numbers that are whole go as ints, those in `floats` as floats. */
  draw(
    source: string,
    target: Texture,
    textures: Record<string, Texture>,
    ints: Record<string, number | readonly number[]>,
    floats: Record<string, number> = {},
  ): void {
    const { gl } = this;
    this.check();
    const { program, locations } = this.program(source);
    const location = (name: string) => {
      const known = locations.get(name);
      if (known !== undefined) return known;
      const found = gl.getUniformLocation(program, name);
      locations.set(name, found);
      return found;
    };
    gl.useProgram(program);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.viewport(0, 0, target.width, target.height);
    for (const [unit, [name, texture]] of Object.entries(textures).entries()) {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(texture.layers === 1 ? gl.TEXTURE_2D : gl.TEXTURE_2D_ARRAY, texture.texture);
      gl.uniform1i(location(name), unit);
    }
    for (const [name, value] of Object.entries(ints)) {
      if (typeof value === "number") gl.uniform1i(location(name), value);
      else gl.uniform1iv(location(name), value as number[]);
    }
    for (const [name, value] of Object.entries(floats)) gl.uniform1f(location(name), value);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
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
