/** Named pipes that Firecracker writes to, made by the launcher. A pipe, not a file, which would grow without end: what nobody reads stays out once it is full. */
import { constants, open } from "node:fs";
import { Socket } from "node:net";
import { promisify } from "node:util";

/** Reads it until it is destroyed. */
export const openPipe = async (path: string): Promise<Socket> => {
  // For writing too: it has then no end whoever writes to it, and opening it waits for nobody.
  const fd = await promisify(open)(path, constants.O_RDWR | constants.O_NONBLOCK, 0);
  const pipe = new Socket({ fd, readable: true, writable: false });
  pipe.on("error", () => pipe.destroy());
  return pipe;
};
