/** How stubborn a download is. */
export type DownloadOptions = {
  /** Attempts in a row that bring not a single byte. */
  attempts?: number;
  /** Before the second attempt, doubled for each further one, in ms. */
  pause?: number;
};
