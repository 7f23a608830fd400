// What every view is, types only: a function of an element, data and a listener that answers an object with `update`
// and `destroy`. The data are the parts that the image's tools describe (class View there); a view knows no image.

/** What a person did to a part: its id and what was chosen, typed or clicked. */
export type Emit = (part: string, value: unknown) => void;

export interface View<Data> {
  update(data: Data): void;
  destroy(): void;
}

export type ViewFunction<Data> = (element: HTMLElement, data: Data, emit: Emit) => View<Data>;

export interface StackPart { readonly part: "stack" | "row"; readonly children: readonly Part[] }
export interface HeadingPart { readonly part: "heading"; readonly text: string }
export interface TextPart { readonly part: "text"; readonly text: string }
export interface ErrorPart { readonly part: "error"; readonly text: string; readonly stack: string }
/** A text that is read; line feeds stay. */
export interface ProsePart { readonly part: "prose"; readonly text: string }
export interface BadgePart { readonly part: "badge"; readonly text: string; readonly state: "good" | "bad" | "open" }
export interface ButtonPart { readonly part: "button"; readonly id: string; readonly label: string; readonly enabled: boolean }

export interface FieldPart {
  readonly part: "field";
  readonly id: string;
  readonly label: string;
  readonly value: string;
  /** In characters, of a short one. */
  readonly width?: number;
  /** Shows none of what is typed. */
  readonly isSecret?: boolean;
}

export interface ChoicePart {
  readonly part: "choice";
  readonly id: string;
  readonly label: string;
  readonly options: readonly string[];
  readonly value: number;
}

export interface SwitchesPart {
  readonly part: "switches";
  readonly id: string;
  readonly title: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly on: readonly (readonly boolean[])[];
}

export interface HeatMapPart {
  readonly part: "heatMap";
  readonly id: string;
  readonly title: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** from 0 to 1 */
  readonly values: readonly (readonly (number | null)[])[];
  readonly texts: readonly (readonly string[])[] | null;
  readonly unit: string;
}

export interface BarsPart {
  readonly part: "bars";
  readonly id: string;
  readonly labels: readonly string[];
  readonly series: readonly { readonly name: string; readonly values: readonly number[] }[];
  readonly unit: string;
}

export interface TablePart {
  readonly part: "table";
  readonly id: string;
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number | null)[])[];
  /** What can be done to a row, as a button's label; then a click on the row does nothing. */
  readonly action?: string;
}

export type Part =
  | StackPart
  | HeadingPart
  | TextPart
  | ProsePart
  | BadgePart
  | ButtonPart
  | ErrorPart
  | FieldPart
  | ChoicePart
  | SwitchesPart
  | HeatMapPart
  | BarsPart
  | TablePart;
