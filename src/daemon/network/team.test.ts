import assert from "node:assert/strict";
import { test } from "node:test";
import { vmRow } from "../../../test/support/vm-row.ts";
import { vmSockets } from "../../host/paths.ts";
import { joinTeam, networkOf } from "./team.ts";

test("a member gets the first free address of its team, and the lines of all of it", () => {
  const a = vmRow({ id: "1", name: "a", mac: "02:00:00:00:00:0a", team: joinTeam("web", []) });
  const other = vmRow({ id: "2", name: "other", team: joinTeam("db", [a]) });
  const b = vmRow({ id: "3", name: "b", mac: "02:00:00:00:00:0b", team: joinTeam("web", [a, other]) });
  assert.deepEqual([a.team?.address, other.team?.address, b.team?.address], ["10.0.3.2", "10.0.3.2", "10.0.3.3"]);
  assert.deepEqual(joinTeam("web", [b]).address, "10.0.3.2");
  assert.deepEqual(networkOf(b, () => [a, other, b]).team, [
    `team 10.0.3.3 02:00:00:00:00:0b ${vmSockets("3").team}`,
    `peer a 10.0.3.2 ${vmSockets("1").team}`,
    `peer b 10.0.3.3 ${vmSockets("3").team}`,
  ]);
  assert.deepEqual(networkOf(vmRow(), () => assert.fail("nobody is asked")).team, []);
});

test("a team that is full takes nobody", () => {
  const rows = Array.from({ length: 253 }, (_, index) =>
    vmRow({ id: `${index}`, team: { name: "web", address: `10.0.3.${index + 2}` } }),
  );
  assert.throws(() => joinTeam("web", rows), { code: "USAGE" });
});
