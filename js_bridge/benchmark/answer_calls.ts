// A worker that answers calls by name, the other side of the page's `call`.

type Methods = Record<string, (...values: never[]) => unknown>;

export function answerCalls(methods: Methods): void {
  const scope = globalThis as unknown as {
    onmessage: ((event: MessageEvent<{ method: string; values: never[] }>) => void) | null;
    postMessage(data: unknown): void;
  };
  scope.onmessage = async ({ data: { method, values } }) => {
    try {
      scope.postMessage({ result: await methods[method](...values) });
    } catch (error) {
      scope.postMessage({ error: error instanceof Error ? `${error.message}\n${error.stack}` : String(error) });
    }
  };
}
