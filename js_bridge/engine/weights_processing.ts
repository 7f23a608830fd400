export interface Treatment {
  /** Of the norm whose output the matrix reads: what each input is multiplied by, and what is added to it. */
  readonly weight: Float32Array | null;
  readonly bias: Float32Array | null;
  /** Along which axis the means are taken away. */
  readonly centre: "inputs" | "outputs" | null;
  /** The part's name, where a tied table becomes the unembedding. */
  readonly rename: string | null;
}

export const UNTREATED: Treatment = { weight: null, bias: null, centre: null, rename: null };
