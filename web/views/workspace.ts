// The Workspace's editor: CodeMirror with Smalltalk's colours and every Smalltalk's keys. It edits and marks; what an
// expression means is for the image: `evaluate` is asked with the selection, or the line where nothing is selected.

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, StreamLanguage, syntaxHighlighting } from "@codemirror/language";
import { smalltalk } from "@codemirror/legacy-modes/mode/smalltalk";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

export type EvaluationMode = "do" | "print" | "inspect";

export interface Evaluation {
  readonly source: string;
  readonly mode: EvaluationMode;
}

/**
 * What came of an evaluation: a text to print, or an error with the Smalltalk stack and, of a syntax error, its place
 * from 0; or nothing, because it was stopped.
 */
export type Outcome =
  | { readonly text: string }
  | { readonly stopped: true }
  | { readonly error: string; readonly stack: string; readonly position?: number };

export interface WorkspaceView {
  run(mode: EvaluationMode): void;
  focus(): void;
  destroy(): void;
}

const colours = HighlightStyle.define([
  { tag: tags.comment, class: "code-comment" },
  { tag: tags.string, class: "code-string" },
  { tag: tags.number, class: "code-number" },
  { tag: tags.keyword, class: "code-keyword" },
  { tag: tags.atom, class: "code-atom" },
]);

export function workspace(
  element: HTMLElement,
  contents: string,
  evaluate: (evaluation: Evaluation) => Promise<Outcome>,
  showError: (error: string, stack: string) => void,
  stop: () => void,
): WorkspaceView {
  const view = new EditorView({
    parent: element,
    state: EditorState.create({
      doc: contents,
      extensions: [
        keymap.of([
          command("Mod-d", "do"),
          command("Mod-p", "print"),
          command("Mod-i", "inspect"),
          {
            key: "Mod-.",
            preventDefault: true,
            run: () => {
              stop();
              return true;
            },
          },
        ]),
        lineNumbers(),
        history(),
        drawSelection(),
        highlightActiveLine(),
        highlightSelectionMatches(),
        bracketMatching(),
        StreamLanguage.define(smalltalk),
        syntaxHighlighting(colours),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ "aria-label": "Workspace: Smalltalk source", spellcheck: "false" }),
        keymap.of([...searchKeymap, ...historyKeymap, ...defaultKeymap, indentWithTab]),
      ],
    }),
  });

  function command(key: string, mode: EvaluationMode) {
    return {
      key,
      preventDefault: true,
      run: () => {
        void evaluateSelection(mode);
        return true;
      },
    };
  }

  async function evaluateSelection(mode: EvaluationMode): Promise<void> {
    const range = view.state.selection.main;
    const line = view.state.doc.lineAt(range.head);
    const from = range.empty ? line.from : range.from;
    const to = range.empty ? line.to : range.to;
    const source = view.state.sliceDoc(from, to);
    if (source.trim() === "") return;
    const outcome = await evaluate({ source, mode });
    if ("stopped" in outcome) return;
    if ("error" in outcome) {
      showError(outcome.error, outcome.stack);
      if (outcome.position !== undefined) {
        view.dispatch({ selection: { anchor: Math.min(from + outcome.position, view.state.doc.length) }, scrollIntoView: true });
      }
      return;
    }
    if (mode === "print") {
      // The printed text is selected, so that one key press takes it away again.
      const text = ` ${outcome.text}`;
      const place = Math.min(to, view.state.doc.length);
      view.dispatch({
        changes: { from: place, insert: text },
        selection: { anchor: place, head: place + text.length },
        scrollIntoView: true,
      });
    }
  }

  return {
    run: (mode) => void evaluateSelection(mode),
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}
