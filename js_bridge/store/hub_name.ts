// How a repository of the Hub is named in a message and in an address.

/** Addresses of repositories: hub:owner/name. */
export const HUB_SCHEME = "hub:";
export const PUBLIC_HUB = "https://huggingface.co";

/** Whether a text can be a repository's name: `owner/name`, or the `name` alone of an old one. */
export function isRepositoryName(name: string): boolean {
  return /^[A-Za-z0-9][\w.-]*(\/[A-Za-z0-9][\w.-]*)?$/.test(name);
}
