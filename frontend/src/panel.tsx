import { Dialog, ReactWidget, showDialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { UseSignal } from '@jupyterlab/ui-components';
import React from 'react';

import {
  failureOf,
  IConnection,
  IFailure,
  IHeldKernel,
  IJob,
  IUsage
} from './api';
import { about, countdown, roundTrip, span } from './format';
import { codespaceIcon } from './icon';
import { headline } from './jobView';
import { CodespacesModel } from './model';
import { Failure, IViewProps, useSeconds } from './parts';

export interface IPanelActions {
  /** Show the dialog, with a job of it where one is named. */
  connect: (job?: string) => void;
  /** End a kernel; through this server's session where it has one. */
  endKernel: (kernel: IHeldKernel) => Promise<void>;
}

interface IProps extends IViewProps {
  model: CodespacesModel;
  actions: IPanelActions;
}

/** The side panel: what is connected, what it does, and what it costs. */
export class CodespacesPanel extends ReactWidget {
  constructor(
    private _model: CodespacesModel,
    private _actions: IPanelActions,
    private _trans: TranslationBundle
  ) {
    super();
    this.id = 'codespace-kernels-panel';
    this.title.icon = codespaceIcon;
    this.title.caption = _trans.__('Codespaces');
    this.addClass('ck-Panel');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _trans.__('Codespaces'));
  }

  protected render(): JSX.Element {
    const props = {
      model: this._model,
      actions: this._actions,
      trans: this._trans
    };
    return (
      <UseSignal signal={this._model.changed}>
        {() => <Panel {...props} />}
      </UseSignal>
    );
  }
}

function Panel(props: IProps): JSX.Element {
  const { model, actions, trans } = props;
  const jobs = model.jobs.filter(job => !isOver(job, model));
  return (
    <>
      <header className="ck-panel-header">
        <h2>{trans.__('Codespaces')}</h2>
        <button
          className="jp-mod-styled jp-mod-minimal"
          onClick={() => actions.connect()}
        >
          {trans.__('Connect…')}
        </button>
      </header>
      {jobs.map(job => (
        <Work key={job.id} {...props} job={job} />
      ))}
      {model.connections.length === 0 && jobs.length === 0 && (
        <p className="ck-empty">{trans.__('No codespace is connected.')}</p>
      )}
      {model.connections.map(connection => (
        <Connection
          key={`${connection.api_url} ${connection.name}`}
          {...props}
          connection={connection}
        />
      ))}
    </>
  );
}

/** Whether a job ended as it should, and nobody has to see to it any more. */
function isOver(job: IJob, model: CodespacesModel): boolean {
  const again = model.connections.some(
    one => one.name === job.subject && one.state !== 'not connected'
  );
  return (
    job.state === 'done' &&
    (job.kind === 'login' || (job.kind === 'stop' && again))
  );
}

/** A job: under way, or waiting to be seen to. */
function Work(props: IProps & { job: IJob }): JSX.Element {
  const { job, trans, model, actions } = props;
  const running = job.state === 'running';
  const last = job.steps[job.steps.length - 1];
  return (
    <section className="ck-card" aria-label={headline(job, props)}>
      <h3>{headline(job, props)}</h3>
      {running && (
        <p className="ck-busy" role="status">
          <span className="ck-spinner" aria-hidden="true" />
          {last?.message}
        </p>
      )}
      {job.error && <Failure failure={job.error} trans={trans} />}
      {job.state === 'cancelled' && <p>{trans.__('Cancelled.')}</p>}
      {job.state === 'done' && (
        <p>
          {job.kind === 'stop'
            ? trans.__('Running a cell starts it again.')
            : trans.__('Choose a kernel for a notebook.')}
        </p>
      )}
      <div className="ck-actions">
        {job.kind !== 'stop' && (running || job.state === 'done') && (
          <button
            className="jp-mod-styled jp-mod-minimal"
            onClick={() => actions.connect(job.id)}
          >
            {running ? trans.__('Show') : trans.__('Choose…')}
          </button>
        )}
        <button
          className="jp-mod-styled jp-mod-minimal"
          onClick={() => void model.api.endJob(job.id)}
        >
          {running ? trans.__('Cancel') : trans.__('Dismiss')}
        </button>
      </div>
    </section>
  );
}

function Connection(
  props: IProps & { connection: IConnection }
): JSX.Element {
  const { connection, model, trans } = props;
  const kernels = model.kernelsOf(connection.name);
  const [failure, setFailure] = React.useState<IFailure | null>(null);
  const attempt = async (work: Promise<unknown>) => {
    setFailure(null);
    try {
      await work;
    } catch (error) {
      setFailure(failureOf(error));
    }
  };
  const stop = async () => {
    if (await agreed(connection, kernels, trans)) {
      await attempt(model.api.stop(connection.name));
    }
  };
  return (
    <section className="ck-card" aria-label={connection.name}>
      <h3>
        <span
          className={`ck-dot ck-mod-${connection.state.replace(' ', '-')}`}
          aria-hidden="true"
        />
        {connection.name}
      </h3>
      <p className="ck-card-state">{stateLine(connection, trans)}</p>
      <Figures
        connection={connection}
        trans={trans}
        busy={kernels.some(kernel => kernel.state === 'busy')}
      />
      <h4>{trans.__('Kernels')}</h4>
      {kernels.length === 0 && (
        <p className="ck-hint">{trans.__('None is running.')}</p>
      )}
      <ul className="ck-kernels">
        {kernels.map(kernel => (
          <Kernel
            key={kernel.id}
            kernel={kernel}
            trans={trans}
            onEnd={() => void attempt(props.actions.endKernel(kernel))}
          />
        ))}
      </ul>
      {failure && <Failure failure={failure} trans={trans} />}
      {connection.codespace_state !== 'stopped' && (
        <div className="ck-actions">
          <button
            className="jp-mod-styled jp-mod-minimal"
            onClick={() => void stop()}
          >
            {trans.__('Stop codespace…')}
          </button>
        </div>
      )}
    </section>
  );
}

/** The connection's state in words, as the panel and the status bar have it. */
export function stateLine(
  connection: IConnection,
  trans: TranslationBundle
): string {
  const states: { [state: string]: string } = {
    'not connected': trans.__('Not connected'),
    connecting: trans.__('Connecting'),
    connected: trans.__('Connected'),
    reconnecting: trans.__('Reconnecting')
  };
  const stopped =
    connection.state === 'not connected' &&
    connection.codespace_state === 'stopped';
  const state = stopped
    ? trans.__('Stopped')
    : states[connection.state] ?? connection.state;
  if (connection.doing) {
    return `${state}: ${connection.doing}`;
  }
  return connection.round_trip_ms === null
    ? state
    : `${state} · ${roundTrip(connection.round_trip_ms)}`;
}

/** Below this, in seconds, the end of a time is counted down. */
const SOON = 3600;

function secondsOf(moment: string | null): number | null {
  return moment ? Date.parse(moment) / 1000 : null;
}

/** What is known of when the codespace stops. */
function stopRows(
  usage: IUsage,
  now: number,
  busy: boolean,
  trans: TranslationBundle
): [string, string][] {
  const rows: [string, string][] = [];
  const cap = secondsOf(usage.capped_at ?? usage.capped_before);
  const left = cap === null ? Infinity : cap - now;
  if (left > 0 && left < SOON) {
    const text = countdown(left, trans);
    rows.push([
      trans.__('Longest session ends in'),
      usage.capped_at ? text : trans.__('%1 at the latest', text)
    ]);
  }
  const awake = secondsOf(usage.awake_until);
  const idle = secondsOf(usage.idle_stops_at);
  const ours = secondsOf(usage.stop_when_idle_at);
  if (awake !== null && awake > now) {
    const text = busy
      ? trans.__('not while a kernel is busy')
      : trans.__('not while a notebook is open');
    rows.push([trans.__('Stops'), text]);
    if (awake - now < SOON) {
      rows.push([
        trans.__('Kept awake, unless used, for'),
        countdown(awake - now, trans)
      ]);
    }
  } else if (ours !== null && (idle === null || ours < idle)) {
    const text = countdown(ours - now, trans);
    rows.push([
      trans.__('Stops in'),
      trans.__('%1, as its kernelspec says', text)
    ]);
  } else if (idle !== null) {
    rows.push([trans.__('Stops in'), countdown(idle - now, trans)]);
    if (awake !== null) {
      rows.push([trans.__('Kept awake'), trans.__('no longer: run a cell')]);
    }
  } else if (usage.running_since && usage.idle_timeout_minutes) {
    rows.push([
      trans.__('Stops'),
      trans.__('%1 min after its last use', usage.idle_timeout_minutes)
    ]);
  }
  return rows;
}

function Figures(
  props: IViewProps & { connection: IConnection; busy: boolean }
): JSX.Element | null {
  const { trans } = props;
  const { usage } = props.connection;
  const now = useSeconds();
  if (!usage) {
    return null;
  }
  const since = usage.running_since && Date.parse(usage.running_since) / 1000;
  const rows: [string, string][] = [];
  if (usage.machine) {
    rows.push([trans.__('Machine'), usage.machine]);
  }
  if (since) {
    const up = span(now - since, trans);
    rows.push([
      trans.__('Running for'),
      usage.running_since_exact ? up : trans.__('at least %1', up)
    ]);
  }
  rows.push(...stopRows(usage, now, props.busy, trans));
  if (usage.session_dollars !== null) {
    rows.push([trans.__('This session'), about(usage.session_dollars, trans)]);
  }
  if (usage.month_dollars !== null) {
    rows.push([
      trans.__('This month'),
      `${about(usage.month_dollars, trans)} (${span(usage.month_hours * 3600, trans)})`
    ]);
  }
  return (
    <>
      <dl className="ck-figures">
        {rows.map(([term, value]) => (
          <React.Fragment key={term}>
            <dt>{term}</dt>
            <dd>{value}</dd>
          </React.Fragment>
        ))}
      </dl>
      {usage.month_dollars !== null && (
        <p className="ck-hint">
          {trans.__('Estimated from')}{' '}
          <a
            href={usage.prices_source}
            target="_blank"
            rel="noopener noreferrer"
          >
            {trans.__('published prices')}
          </a>{' '}
          {trans.__('of %1', usage.prices_date)}
        </p>
      )}
    </>
  );
}

function Kernel(
  props: IViewProps & { kernel: IHeldKernel; onEnd: () => void }
): JSX.Element {
  const { kernel, trans } = props;
  const notebook = kernel.session.split('/').pop() ?? '';
  const what = notebook || trans.__('no notebook');
  return (
    <li>
      <span
        className={`ck-dot ck-mod-${kernel.state}`}
        aria-hidden="true"
      />
      <span className="ck-kernel-text" title={kernel.session}>
        {what}
        <span className="ck-hint">
          {kernel.kernel} · {kernel.state}
          {kernel.kept ? ` · ${trans.__('kept')}` : ''}
        </span>
      </span>
      <button
        className="jp-mod-styled jp-mod-minimal"
        aria-label={trans.__('End kernel %1 of %2', kernel.kernel, what)}
        onClick={props.onEnd}
      >
        {trans.__('End')}
      </button>
    </li>
  );
}

/** Ask before a codespace is stopped; say which kernels end. */
async function agreed(
  connection: IConnection,
  kernels: IHeldKernel[],
  trans: TranslationBundle
): Promise<boolean> {
  const body = (
    <div className="ck-agree">
      <p>
        {kernels.length
          ? trans.__('These kernels end, and what is in their memory is lost:')
          : trans.__('No kernel is running in it.')}
      </p>
      <ul>
        {kernels.map(kernel => (
          <li key={kernel.id}>
            {kernel.session || kernel.kernel} ({kernel.state})
          </li>
        ))}
      </ul>
      <p>{trans.__('Its files stay. Running a cell starts it again.')}</p>
    </div>
  );
  const answer = await showDialog({
    title: trans.__('Stop %1?', connection.name),
    body,
    buttons: [
      Dialog.cancelButton(),
      Dialog.warnButton({ label: trans.__('Stop codespace') })
    ]
  });
  return answer.button.accept;
}
