/** MiscPrimitivePlugin: searching, comparing and translating strings of bytes, as Squeak's String classes call it. */
import type { ExternalModule } from "../modules.ts";
import type { Oop } from "../object.ts";
import type { InterpreterProxy } from "../proxy.ts";

const hashMultiplier = 1664525;

export function miscPlugin(): ExternalModule {
  let proxy: InterpreterProxy;

  /** A primitive whose compute reads its arguments through the proxy; null fails. */
  const primitive = (compute: () => Oop | null) => (argCount: number): boolean => {
    const result = compute();
    if (proxy.failed() || result === null) return false;
    proxy.popthenPush(argCount + 1, result);
    return true;
  };

  /** compare: string1 with: string2 collated: table → 1, 2 or 3 for less, equal, greater. */
  const compareString = (): Oop => {
    const [a, b, order] = [2, 1, 0].map((depth) => proxy.stackBytes(depth));
    const shorter = Math.min(a.length, b.length);
    for (let i = 0; i < shorter; i++) {
      const difference = order[a[i]] - order[b[i]];
      if (difference !== 0) return difference < 0 ? 1 : 3;
    }
    return a.length === b.length ? 2 : a.length < b.length ? 1 : 3;
  };

  /** translate: string from: start to: stop table: table, in place. */
  const translate = (): Oop | null => {
    const text = proxy.stackBytes(3);
    const table = proxy.stackBytes(0);
    const start = proxy.stackIntegerValue(2);
    const stop = proxy.stackIntegerValue(1);
    if (start < 1 || stop > text.length || table.length < 256) return null;
    for (let i = start - 1; i < stop; i++) text[i] = table[text[i]];
    return proxy.stackValue(4);
  };

  /** findSubstring: key in: body startingAt: start matchTable: table → index or 0. */
  const findSubstring = (): Oop => {
    const key = proxy.stackBytes(3);
    const body = proxy.stackBytes(2);
    const start = proxy.stackIntegerValue(1);
    const table = proxy.stackBytes(0);
    if (key.length === 0) return 0;
    for (let at = Math.max(start, 1); at + key.length - 1 <= body.length; at++) {
      let i = 0;
      while (i < key.length && table[body[at - 1 + i]] === table[key[i]]) i++;
      if (i === key.length) return at;
    }
    return 0;
  };

  /** findFirstInString: string inSet: flags startingAt: start → index or 0. */
  const findFirst = (): Oop | null => {
    const text = proxy.stackBytes(2);
    const set = proxy.stackBytes(1);
    const start = proxy.stackIntegerValue(0);
    if (start < 1 || set.length < 256) return null;
    for (let i = start; i <= text.length; i++) if (set[text[i - 1]] !== 0) return i;
    return 0;
  };

  const indexOfAscii = (): Oop | null => {
    const code = proxy.stackIntegerValue(2);
    const text = proxy.stackBytes(1);
    const start = proxy.stackIntegerValue(0);
    return start < 1 ? null : text.indexOf(code, start - 1) + 1;
  };

  const stringHash = (): Oop => {
    let hash = proxy.stackIntegerValue(0) & 0xfffffff;
    for (const byte of proxy.stackBytes(1)) hash = Math.imul(hash + byte, hashMultiplier) & 0xfffffff;
    return hash;
  };

  return {
    getModuleName: () => "MiscPrimitivePlugin",
    setInterpreter(interpreterProxy: InterpreterProxy) {
      proxy = interpreterProxy;
      return true;
    },
    primitiveCompareString: primitive(compareString),
    primitiveTranslateStringWithTable: primitive(translate),
    primitiveFindSubstring: primitive(findSubstring),
    primitiveFindFirstInString: primitive(findFirst),
    primitiveIndexOfAsciiInString: primitive(indexOfAscii),
    primitiveStringHash: primitive(stringHash),
  } as ExternalModule;
}
