// The engine's worker, watched: the import that comes first replaces what the others allocate with.

import "./watch_buffers.ts";
import "../engine/worker.ts";
