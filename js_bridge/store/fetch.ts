// Bytes by URL, over HTTP. A host without HTTP (Node and its files) passes a function of the same type.

/** The bytes of a file or of a range of it; null when there is no such file. A host that can't cut answers the whole file. */
export type FetchBytes = (
  url: string,
  range?: { offset: number; bytes: number },
  onBytes?: (count: number) => void,
) => Promise<Uint8Array | null>;

export const fetchOverHttp: FetchBytes = async (url, range, onBytes) => {
  const headers: HeadersInit =
    range === undefined ? {} : { Range: `bytes=${range.offset}-${range.offset + range.bytes - 1}` };
  const response = await fetch(url, { headers });
  if (response.status === 404 || response.status === 410) return null;
  if (!response.ok) throw new Error(`${url}: HTTP ${response.status} ${response.statusText}`);
  if (onBytes === undefined || response.body === null) return new Uint8Array(await response.arrayBuffer());
  const pieces: Uint8Array[] = [];
  let total = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    total += value.length;
    onBytes(value.length);
  }
  const bytes = new Uint8Array(total);
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
};
