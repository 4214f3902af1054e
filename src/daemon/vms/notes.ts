/** What the user of a VM should know about the host it starts on. */
import type { Vm } from "../../contract/vms.ts";
import type { VmmHost } from "../../vmm/driver.ts";

const tcgNote =
  "KVM does not work here (see `banger doctor`), so VMs are emulated (qemu/tcg): several times slower, and no security boundary against code that attacks the emulator";

/** @returns a function that gives the notes for a start; what concerns the whole host is said once in a daemon's life */
export const startNotes = (): ((host: VmmHost, network: Vm["network"]) => string[]) => {
  let toldOfTcg = false;
  return ({ accel, network: backend }, network) => {
    const notes = network !== "none" && backend.note ? [backend.note] : [];
    if (accel === "tcg" && !toldOfTcg) notes.push(tcgNote);
    toldOfTcg = true;
    return notes;
  };
};
