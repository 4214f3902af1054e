/** How many VMs start at once. They take each other's time, and their guests are told so. */
import { availableParallelism } from "node:os";

export type Crowd = {
  /** One more starts; disposing it says that it has started. */
  join(): Disposable;
  /** VMs for each CPU, of all that have started since none did: 1 or more. */
  perCpu(): number;
};

export const startCrowd = (cpus = availableParallelism()): Crowd => {
  let now = 0;
  let most = 0;
  return {
    join: () => {
      now += 1;
      most = Math.max(most, now);
      return {
        [Symbol.dispose]: () => {
          now -= 1;
          if (now === 0) most = 0;
        },
      };
    },
    perCpu: () => Math.max(1, Math.ceil(most / cpus)),
  };
};
