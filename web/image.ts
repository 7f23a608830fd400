// Fetches the image with progress; it may stand on the host compressed, as neuroscope.image.gz.

import { progress } from "./progress.ts";

export async function fetchImage(url: string, status: HTMLElement): Promise<ArrayBuffer> {
  const response = await fetch(url);
  if (!response.ok || !response.body) {
    throw new Error(`The image ${url} could not be fetched: status ${response.status}. Build the site again with \`neuroscope site\`.`);
  }
  const total = Number(response.headers.get("content-length") ?? 0);
  const line = progress(status, "Image");
  let loaded = 0;
  const counted = response.body.pipeThrough(
    new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(chunk, controller) {
        loaded += chunk.length;
        line.update(loaded, Math.max(total, loaded));
        controller.enqueue(chunk);
      },
    }),
  );
  const isGzip = url.endsWith(".gz");
  const bytes = await new Response(isGzip ? counted.pipeThrough(new DecompressionStream("gzip")) : counted).arrayBuffer();
  line.done();
  return bytes;
}
