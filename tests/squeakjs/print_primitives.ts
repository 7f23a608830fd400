/** Prints, as JSON, the numbers of the primitive table and the functions of the modules, the host's among them. */
import { NeuroScopeHost } from "../../js_bridge/host/neuroscope_host.ts";
import { primitiveTable } from "../../squeakjs/index.ts";
import { TinyImage } from "./tiny_image.ts";

const { vm } = new TinyImage().start({ bytes: [0x78] });
const host = new NeuroScopeHost({ write: () => {}, receive: () => {}, exit: () => {} });
vm.registerExternalModule("NeuroScopeHost", host);
console.log(
  JSON.stringify({
    numbers: [...primitiveTable.keys()],
    modules: Object.fromEntries(vm.moduleNames().map((name) => [name, vm.moduleFunctions(name)])),
  }),
);
