import { Dialog, ReactWidget } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import React from 'react';

import { ConnectFlow, ITarget } from './flow';
import { CodespacesModel } from './model';

const FOCUSABLE =
  'button, input, select, textarea, a[href], summary, [tabindex]:not([tabindex="-1"])';

/**
 * A dialog whose body has the buttons: they change from view to view.
 *
 * JupyterLab's own dialog takes Enter and the arrow keys for its buttons; here they belong to the form in it.
 */
class FormDialog extends Dialog<unknown> {
  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    // Keys are for the dialog even while there is nothing in it yet to be focused.
    this.node.tabIndex = -1;
    this.node.focus();
  }

  protected _evtKeydown(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      event.stopPropagation();
      event.preventDefault();
      this.reject();
    } else if (event.key === 'Tab') {
      this._keepFocus(event);
    }
  }

  private _keepFocus(event: KeyboardEvent): void {
    const all = Array.from(
      this.node.querySelectorAll<HTMLElement>(FOCUSABLE)
    ).filter(
      node => !node.matches(':disabled') && node.getClientRects().length > 0
    );
    const [first, last] = [all[0], all[all.length - 1]];
    const active = document.activeElement;
    if (event.shiftKey ? active === first : active === last) {
      event.stopPropagation();
      event.preventDefault();
      (event.shiftKey ? last : first)?.focus();
    }
  }
}

/** Let a person choose a codespace, or make one, and then a kernel in it. */
export async function showConnectDialog(options: {
  model: CodespacesModel;
  trans: TranslationBundle;
  target: ITarget;
  job?: string;
}): Promise<void> {
  const { trans } = options;
  const body = ReactWidget.create(
    <ConnectFlow {...options} onClose={() => dialog.reject()} />
  );
  body.addClass('ck-Dialog-body');
  const title = trans.__('Connect to Codespace');
  const dialog = new FormDialog({ title, body, buttons: [] });
  dialog.addClass('ck-Dialog');
  dialog.node.setAttribute('aria-label', title);
  await options.model.refresh();
  await dialog.launch();
}
