// The labs whose models the page offers beside its own: those that its host names in labs.json, and the one that the
// reader names as ?lab=. The file is there on every host, so nothing is asked for in vain: a site is built with an empty
// list, its owner may write labs into it, and `neuroscope serve` answers it with itself. What a lab has, the image asks.

/** Addresses. A list that can't be had, as offline, names none. */
export async function findLabs(list: string, named: string | null): Promise<string[]> {
  const url = new URL(list, document.baseURI);
  const addresses = await fetch(url, { cache: "no-cache" })
    .then((response) => response.json() as Promise<string[]>)
    .catch(() => []);
  const listed = addresses.map((address) => new URL(address, url).href.replace(/\/$/, ""));
  return named === null ? listed : [named, ...listed];
}
