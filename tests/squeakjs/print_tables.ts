/** Prints the machine's tables as JSON, for the comparison with the builder's (test_tables.py). */
import { v3Bytecodes, specialObjects, specialSelectors } from "../../squeakjs/index.ts";
import { blockContextSlots, classSlots, contextSlots, largeContextSize, processSlots, smallContextSize } from "../../squeakjs/special_objects.ts";

console.log(JSON.stringify({ v3Bytecodes, specialObjects, specialSelectors, contextSlots, blockContextSlots, classSlots, processSlots, smallContextSize, largeContextSize }));
