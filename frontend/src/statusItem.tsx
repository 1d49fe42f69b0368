import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import { ISignal } from '@lumino/signaling';
import React from 'react';

import { roundTrip } from './format';
import { codespaceIcon } from './icon';
import { CodespacesModel } from './model';
import { stateLine } from './panel';

/** The codespace of the notebook that is looked at, in the status bar. */
export class StatusItem extends ReactWidget {
  constructor(
    private _options: {
      model: CodespacesModel;
      trans: TranslationBundle;
      /** Emitted when another codespace is looked at. */
      moved: ISignal<unknown, unknown>;
      /** Name of the codespace; empty for a kernel that is elsewhere. */
      current: () => string;
      onClick: () => void;
    }
  ) {
    super();
    this.addClass('ck-StatusItem');
  }

  protected render(): JSX.Element {
    const { model, moved } = this._options;
    return (
      <UseSignal signal={model.changed}>
        {() => <UseSignal signal={moved}>{() => this._line()}</UseSignal>}
      </UseSignal>
    );
  }

  private _line(): JSX.Element | null {
    const { model, trans, current, onClick } = this._options;
    const name = current();
    if (!name) {
      return null;
    }
    const connection = model.connections.find(one => one.name === name);
    const state = connection?.state ?? 'not connected';
    const shown = connection
      ? stateLine(connection, trans)
      : trans.__('Not connected');
    const trip = connection?.round_trip_ms ?? null;
    return (
      <button
        className="ck-status-button"
        title={`${name}: ${shown}`}
        aria-label={trans.__('Codespace %1: %2. Show the panel', name, shown)}
        onClick={onClick}
      >
        <codespaceIcon.react tag="span" width="14px" height="14px" />
        <span
          className={`ck-dot ck-mod-${state.replace(' ', '-')}`}
          aria-hidden="true"
        />
        <span>{name}</span>
        {state === 'connected' && trip !== null && (
          <span className="ck-status-trip">{roundTrip(trip)}</span>
        )}
        {state !== 'connected' && <span>{shown.split(':')[0]}</span>}
      </button>
    );
  }
}
