/**
 * The special objects array: the objects that the machine and the image agree on, by index.
 * Indexes are those of Squeak's virtual machines; the ones that only displays or foreign calls use are absent.
 */

export const specialObjects = {
  nil: 0,
  false: 1,
  true: 2,
  processorAssociation: 3,
  classBitmap: 4,
  classSmallInteger: 5,
  classString: 6,
  classArray: 7,
  smalltalkAssociation: 8,
  classFloat: 9,
  classContext: 10,
  classBlockContext: 11,
  classPoint: 12,
  classLargePositiveInteger: 13,
  classMessage: 15,
  classCompiledMethod: 16,
  lowSpaceSemaphore: 17,
  classSemaphore: 18,
  classCharacter: 19,
  selectorDoesNotUnderstand: 20,
  selectorCannotReturn: 21,
  processSignalingLowSpace: 22,
  specialSelectors: 23,
  characterTable: 24,
  selectorMustBeBoolean: 25,
  classByteArray: 26,
  classProcess: 27,
  compactClasses: 28,
  timerSemaphore: 29,
  interruptSemaphore: 30,
  selectorCannotInterpret: 34,
  classBlockClosure: 36,
  classFullBlockClosure: 37,
  externalObjects: 38,
  finalizationSemaphore: 41,
  classLargeNegativeInteger: 42,
  selectorAboutToReturn: 48,
  selectorRunWithIn: 49,
  primitiveErrorTable: 51,
} as const;

/** Slots of the objects that the machine itself reads or writes. */
export const contextSlots = {
  sender: 0,
  pc: 1,
  stackp: 2,
  method: 3,
  closure: 4,
  receiver: 5,
  firstTemp: 6,
} as const;

/** The older BlockContext: caller, pc and stackp as a Context's, then its own three. */
export const blockContextSlots = { argumentCount: 3, initialPc: 4, home: 5 } as const;

export const closureSlots = { outerContext: 0, startpc: 1, numArgs: 2, firstCopied: 3 } as const;
export const fullClosureSlots = { outerContext: 0, block: 1, numArgs: 2, receiver: 3, firstCopied: 4 } as const;
export const classSlots = { superclass: 0, methodDictionary: 1, format: 2, name: 6, thisClass: 5 } as const;
export const methodDictionarySlots = { tally: 0, values: 1, firstKey: 2 } as const;
export const associationSlots = { key: 0, value: 1 } as const;
export const linkedListSlots = { firstLink: 0, lastLink: 1 } as const;
export const semaphoreSlots = { excessSignals: 2 } as const;
export const mutexSlots = { owner: 2 } as const;
export const processSlots = { nextLink: 0, suspendedContext: 1, priority: 2, myList: 3 } as const;
export const schedulerSlots = { lists: 0, activeProcess: 1 } as const;
export const messageSlots = { selector: 0, arguments: 1, lookupClass: 2 } as const;

/** A context has one of two sizes; both include its six named slots. */
export const smallContextSize = 6 + 16;
export const largeContextSize = 6 + 56;
