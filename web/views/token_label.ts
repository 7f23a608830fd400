// How a token is written where its blanks must be seen: a space at an end as ␣, a line feed as ⏎, a tab as ⇥. Only for
// looking: the text of a token is never taken back from its label.

const signs: Readonly<Record<string, string>> = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

export function tokenLabel(token: string): string {
  return token.replace(/^ +| +$|[\n\t\r]/g, (blanks) => [...blanks].map((blank) => signs[blank] ?? blank).join(""));
}
