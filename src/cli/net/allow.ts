import { changeCommand } from "./change.ts";

export const command = changeCommand("allow", [
  ["banger vm net allow box 192.168.1.5:5432", "a database in the local network"],
  ["banger vm net allow box github.com:443 '*.githubusercontent.com:443'", "of a VM with --net policy"],
  ["banger vm net allow --remove box 192.168.1.5:5432", "no more"],
]);
