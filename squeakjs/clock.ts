/**
 * The image's clocks, computed from the interpreter's (milliseconds since 1970, UTC): milliseconds modulo 2^29,
 * seconds since 1901 in local time, microseconds since 1901 in UTC or local time.
 */

export const millisecondsMask = 0x1fffffff;

/** Milliseconds from the start of 1901 to the start of 1970: 69 years, 17 of them leap years. */
const from1901To1970 = (69 * 365 + 17) * 24 * 60 * 60 * 1000;

export function clockMilliseconds(now: number): number {
  return Math.floor(now % (millisecondsMask + 1));
}

function localOffset(now: number): number {
  return -new Date(now).getTimezoneOffset() * 60_000;
}

export function secondsSince1901(now: number): number {
  return Math.floor((now + from1901To1970 + localOffset(now)) / 1000);
}

export function utcMicroseconds(now: number): number {
  return Math.floor((now + from1901To1970) * 1000);
}

export function localMicroseconds(now: number): number {
  return Math.floor((now + from1901To1970 + localOffset(now)) * 1000);
}

export function wakeTimeOfMicroseconds(utc: number): number {
  return utc / 1000 - from1901To1970;
}
