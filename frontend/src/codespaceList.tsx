import React from 'react';

import { Api, failureOf, IAccount, ICodespace, IFailure } from './api';
import { ago, dollars } from './format';
import { Busy, Button, Failure, Footer, IViewProps, Options } from './parts';

const SIGN_IN_HELPS = [
  'AuthError',
  'NoTokenError',
  'BadTokenError',
  'MissingScopeError',
  'TokenCannotConnectError'
];

const MANY = 6;

interface IProps extends IViewProps {
  api: Api;
  onConnect: (name: string) => void;
  onCreate: () => void;
  onSignIn: () => void;
  onClose: () => void;
}

/** The account's codespaces, one of which is chosen. */
export function CodespaceList(props: IProps): JSX.Element {
  const { api, trans } = props;
  const [account, setAccount] = React.useState<IAccount | null>(null);
  const codespaces = account?.codespaces;
  const [failure, setFailure] = React.useState<IFailure | null>(null);
  const [name, setName] = React.useState('');
  const [filter, setFilter] = React.useState('');

  const load = React.useCallback(async () => {
    setFailure(null);
    setAccount(null);
    try {
      const found = await api.codespaces();
      setAccount(found);
      setName(before =>
        found.codespaces.some(one => one.name === before)
          ? before
          : found.codespaces[0]?.name ?? ''
      );
    } catch (error) {
      setFailure(failureOf(error));
    }
  }, [api]);
  React.useEffect(() => void load(), [load]);

  const words = filter.toLowerCase().split(/\s+/);
  const shown = (codespaces ?? []).filter(one => {
    const text = `${one.title} ${one.name} ${one.repository} ${one.ref}`;
    return words.every(word => text.toLowerCase().includes(word));
  });
  const chosen = shown.find(one => one.name === name);
  const connectable = chosen !== undefined && chosen.state !== 'failed';

  const submit = (event: React.FormEvent) => {
    event.preventDefault();
    if (connectable) {
      props.onConnect(name);
    }
  };

  return (
    <form className="ck-view" onSubmit={submit}>
      <div className="ck-content">
        {failure && <Failure failure={failure} trans={trans} />}
        {!failure && !codespaces && (
          <Busy text={trans.__('Asking GitHub for your codespaces…')} />
        )}
        {codespaces && codespaces.length > MANY && (
          <input
            className="jp-mod-styled ck-filter"
            type="search"
            aria-label={trans.__('Filter the codespaces')}
            placeholder={trans.__('Filter')}
            value={filter}
            onChange={event => setFilter(event.target.value)}
          />
        )}
        {codespaces?.length === 0 && (
          <p>{trans.__('This account has no codespaces yet. Create one.')}</p>
        )}
        {codespaces && shown.length > 0 && (
          <Options
            label={trans.__('Codespaces')}
            name="ck-codespace"
            value={name}
            onChange={setName}
            onChosen={props.onConnect}
            focus
            options={shown.map(one => ({
              value: one.name,
              title: one.title,
              aside: <State codespace={one} trans={trans} />,
              detail: details(one, props)
            }))}
          />
        )}
        <p className="ck-note" role="status">
          {chosen && advice(chosen, props)}{' '}
          {chosen && startable(chosen) && account && (
            <a
              href={account.prices.source}
              target="_blank"
              rel="noopener noreferrer"
            >
              {trans.__('Published price of %1', account.prices.date)}
            </a>
          )}
        </p>
      </div>
      <Footer>
        {failure && SIGN_IN_HELPS.includes(failure.kind) ? (
          <Button label={trans.__('Sign in…')} onClick={props.onSignIn} />
        ) : (
          <Button
            label={trans.__('Create new…')}
            onClick={props.onCreate}
            accept={codespaces?.length === 0}
          />
        )}
        <span className="ck-stretch" />
        <Button label={trans.__('Cancel')} onClick={props.onClose} />
        {failure ? (
          <Button
            label={trans.__('Try again')}
            onClick={() => void load()}
            accept
          />
        ) : (
          <Button
            label={trans.__('Connect')}
            accept={codespaces?.length !== 0}
            disabled={!connectable}
          />
        )}
      </Footer>
    </form>
  );
}

function State(props: IViewProps & { codespace: ICodespace }): JSX.Element {
  const { trans } = props;
  const { state, provider_state } = props.codespace;
  const words: { [state: string]: string } = {
    stopped: trans.__('Stopped'),
    starting: trans.__('Starting'),
    running: trans.__('Running'),
    stopping: trans.__('Stopping'),
    failed: trans.__('Failed')
  };
  return (
    <span className="ck-state" title={provider_state}>
      <span className={`ck-dot ck-mod-${state}`} aria-hidden="true" />
      {words[state] ?? provider_state}
    </span>
  );
}

function details(codespace: ICodespace, { trans }: IViewProps): string {
  const { repository, ref, machine, last_used_at } = codespace;
  const used = ago(last_used_at, trans);
  return [repository, ref, machine, used && trans.__('used %1', used)]
    .filter(Boolean)
    .join(' · ');
}

/** Whether connecting would begin to cost something that has a price. */
function startable(codespace: ICodespace): boolean {
  const { state, dollars_per_hour } = codespace;
  return !['running', 'failed'].includes(state) && dollars_per_hour !== null;
}

function advice(codespace: ICodespace, { trans }: IViewProps): string {
  const { state, title, provider_state, dollars_per_hour } = codespace;
  if (state === 'running') {
    return '';
  }
  if (state === 'failed') {
    return trans.__(
      '%1 is in the state %2, which no waiting will mend. Look at its page on GitHub.',
      title,
      provider_state
    );
  }
  const payer = codespace.billable_owner;
  const price = dollars_per_hour && dollars(dollars_per_hour);
  if (price && payer) {
    return trans.__(
      'Connecting starts it. It then costs %1 an hour, which %2 pays.',
      price,
      payer
    );
  }
  return price
    ? trans.__('Connecting starts it. It then costs %1 an hour.', price)
    : trans.__('Connecting starts it, which GitHub charges for.');
}
