// Anything that a lab's HTTP API has. The models of a lab answer the messages of model.ts and pass.ts.

/**
 * Asks a lab (`neuroscope serve`) anything that its HTTP API has. Attachment 0, where there is one: the JSON to send.
 * → `asked`
 */
export interface AskRequest {
  kind: "ask";
  id: number;
  /** Address of the lab; left out: the host's own. */
  lab?: string;
  method: "GET" | "POST" | "DELETE";
  path: string;
  /** Default: JSON. */
  accept?: string;
}

/** Attachment 0: the bytes of the lab's answer, whatever its status. */
export interface AskedAnswer {
  kind: "asked";
  id: number;
  status: number;
}
