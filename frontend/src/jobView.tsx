import React from 'react';

import { IJob } from './api';
import { span } from './format';
import { Button, Failure, Footer, IViewProps, useSeconds } from './parts';

interface IProps extends IViewProps {
  job: IJob;
  onCancel: () => void;
  onBack: () => void;
  onClose: () => void;
}

/** Work that is under way, or that ended without a result. */
export function JobView(props: IProps): JSX.Element {
  const { job, trans } = props;
  const running = job.state === 'running';
  const heading = React.useRef<HTMLHeadingElement>(null);
  React.useEffect(() => heading.current?.focus(), [running]);
  return (
    <form className="ck-view" onSubmit={event => event.preventDefault()}>
      <div className="ck-content">
        <h2 className="ck-heading" tabIndex={-1} ref={heading}>
          {headline(job, props)}
        </h2>
        {job.detail.user_code && running && <SignIn {...props} />}
        <Steps {...props} />
        {job.error && <Failure failure={job.error} trans={trans} />}
        {job.state === 'cancelled' && (
          <p role="status">{cancelled(job, props)}</p>
        )}
      </div>
      <Footer>
        {running && (
          <>
            <Button label={trans.__('Cancel')} onClick={props.onCancel} />
            <span className="ck-stretch" />
            <Button
              label={trans.__('Go on in the background')}
              onClick={props.onClose}
            />
          </>
        )}
        {!running && (
          <>
            <span className="ck-stretch" />
            <Button label={trans.__('Close')} onClick={props.onClose} />
            <Button label={trans.__('Back')} onClick={props.onBack} accept />
          </>
        )}
      </Footer>
    </form>
  );
}

/** What the work is, in one line. */
export function headline(job: IJob, { trans }: IViewProps): string {
  if (job.state === 'done' && job.kind !== 'login') {
    return job.kind === 'stop'
      ? trans.__('Stopped %1', job.subject)
      : trans.__('Connected to %1', job.detail.workspace ?? job.subject);
  }
  switch (job.kind) {
    case 'create':
      return trans.__('Creating a codespace of %1', job.subject);
    case 'stop':
      return trans.__('Stopping %1', job.subject);
    case 'login':
      return trans.__('Signing in to GitHub');
    default:
      return trans.__('Connecting to %1', job.subject);
  }
}

function cancelled(job: IJob, { trans }: IViewProps): string {
  const name = job.detail.workspace;
  if (job.detail.unnamed) {
    return trans.__(
      'Cancelled, but GitHub may still make the codespace. Look at the list.'
    );
  }
  return name
    ? trans.__(
        'Cancelled. The codespace %1 is kept: it is in the list, and stops when nothing has used it for a while.',
        name
      )
    : trans.__('Cancelled. Nothing was begun at GitHub.');
}

/** The steps so far; the last one is read out when it changes. */
function Steps(props: IProps): JSX.Element {
  const { job, trans } = props;
  const now = useSeconds();
  const running = job.state === 'running';
  const last = job.steps[job.steps.length - 1];
  return (
    <>
      <ol className="ck-steps">
        {job.steps.map((step, index) => {
          const current = running && index === job.steps.length - 1;
          return (
            <li
              key={index}
              className={current ? 'ck-mod-current' : ''}
              aria-current={current ? 'step' : undefined}
            >
              <span
                className={current ? 'ck-spinner' : 'ck-done'}
                aria-hidden="true"
              />
              <span>{step.message}</span>
            </li>
          );
        })}
      </ol>
      {running && (
        <p className="ck-note" aria-hidden="true">
          {span(now - job.started_at, trans)}
        </p>
      )}
      <p className="ck-visually-hidden" role="status" aria-live="polite">
        {running && last?.message}
      </p>
    </>
  );
}

function SignIn(props: IProps): JSX.Element {
  const { detail } = props.job;
  return (
    <p>
      {props.trans.__('Open')}{' '}
      <a
        href={detail.verification_uri}
        target="_blank"
        rel="noopener noreferrer"
      >
        {detail.verification_uri}
      </a>{' '}
      {props.trans.__('and enter the code')}{' '}
      <code className="ck-code">{detail.user_code}</code>
    </p>
  );
}
