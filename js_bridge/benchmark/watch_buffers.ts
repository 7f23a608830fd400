// Installs the watch when it is imported, and tells whoever asks over the channel.

import { BufferWatch } from "./buffer_watch.ts";

const watch = new BufferWatch();
const channel = new BroadcastChannel("neuroscope buffers");
channel.onmessage = ({ data }) => {
  if (data === "report") channel.postMessage(watch.report());
};
