import React from 'react';

import { Api, failureOf, IChoices, ICreation, IFailure } from './api';
import { MachineOptions, MoreFields } from './createFields';
import { Busy, Button, Failure, Field, Footer, IViewProps } from './parts';

const REPOSITORY = /^[^\s/]+\/[^\s/]+$/;

/** Milliseconds without a key before GitHub is asked. */
const PAUSE = 700;

interface IProps extends IViewProps {
  api: Api;
  wanted: ICreation;
  onChange: (wanted: ICreation) => void;
  onCreate: (wanted: ICreation) => void;
  onBack: () => void;
}

/** What the choices depend on; another one of these makes them stale. */
function keyOf(wanted: ICreation): string {
  const { repository, ref, devcontainer_path, location } = wanted;
  return JSON.stringify([repository, ref, devcontainer_path, location]);
}

/** A new codespace. Who pays is shown before the button works. */
export function CreateForm(props: IProps): JSX.Element {
  const { trans, wanted } = props;
  const { choices, failure, loading, reload } = useChoices(props.api, wanted);
  const offered = useRepositories(props.api, wanted.repository);
  const change = (part: Partial<ICreation>) =>
    props.onChange({ ...wanted, ...part });

  const asks = choices?.permissions_accepted === false;
  // Where GitHub names the page to grant them on only when it refuses to create, it must be asked to.
  const mayAsk = !asks || wanted.default_permissions || !choices.permissions_url;
  const ready = !loading && choices !== null && mayAsk;
  const submit = (event: React.FormEvent) => {
    event.preventDefault();
    if (ready) {
      const machine = wanted.machine || choices.machines[0]?.name;
      props.onCreate({ ...wanted, machine });
    }
  };

  return (
    <form className="ck-view" onSubmit={submit}>
      <div className="ck-content">
        <Field
          id="ck-repository"
          label={trans.__('Repository')}
          hint={trans.__('owner/name, one of yours or any that you may read')}
        >
          <input
            id="ck-repository"
            className="jp-mod-styled"
            list="ck-repositories"
            placeholder="octocat/hello"
            aria-describedby="ck-repository-hint"
            autoComplete="off"
            spellCheck={false}
            autoFocus
            value={wanted.repository}
            onChange={event =>
              props.onChange({ repository: event.target.value.trim() })
            }
          />
          <datalist id="ck-repositories">
            {offered.map(name => (
              <option key={name} value={name} />
            ))}
          </datalist>
        </Field>
        <div role="status" aria-live="polite">
          {loading && <Busy text={trans.__('Asking GitHub what there is…')} />}
          {choices && !loading && <Payer choices={choices} trans={trans} />}
        </div>
        {failure && <Failure failure={failure} trans={trans} />}
        {choices && (
          <>
            <BranchFields {...props} choices={choices} change={change} />
            <MachineOptions
              trans={trans}
              machines={choices.machines}
              prices={choices.prices}
              value={wanted.machine || choices.machines[0]?.name || ''}
              onChange={machine => change({ machine })}
            />
            <MoreFields
              trans={trans}
              choices={choices}
              wanted={wanted}
              change={change}
            />
            {choices.notes.length > 0 && (
              <ul className="ck-notes" aria-label={trans.__('Good to know')}>
                {choices.notes.map(note => (
                  <li key={note}>{note}</li>
                ))}
              </ul>
            )}
            {asks && (
              <Permissions
                {...props}
                choices={choices}
                change={change}
                reload={reload}
              />
            )}
          </>
        )}
      </div>
      <Footer>
        <Button label={trans.__('Back')} onClick={props.onBack} />
        <span className="ck-stretch" />
        {failure && (
          <Button label={trans.__('Try again')} onClick={reload} />
        )}
        <Button
          label={trans.__('Create and connect')}
          accept
          disabled={!ready}
        />
      </Footer>
    </form>
  );
}

function Payer(props: IViewProps & { choices: IChoices }): JSX.Element {
  const { trans } = props;
  const { payer, repository } = props.choices;
  const organization = payer.kind === 'Organization';
  return (
    <p className="ck-payer">
      {!payer.login &&
        trans.__('GitHub does not say who pays for a codespace of %1.', repository)}
      {payer.login && !organization && (
        <>
          <strong>{payer.login}</strong>{' '}
          {trans.__('pays for a codespace of %1.', repository)}
        </>
      )}
      {payer.login && organization && (
        <>
          {trans.__('The organization')} <strong>{payer.login}</strong>{' '}
          {trans.__('pays for a codespace of %1.', repository)}
        </>
      )}
    </p>
  );
}

interface IPartProps extends IProps {
  choices: IChoices;
  change: (part: Partial<ICreation>) => void;
}

function BranchFields(props: IPartProps): JSX.Element {
  const { trans, choices, wanted, change } = props;
  const { devcontainers } = choices;
  const usual = devcontainers.find(one => one.is_default);
  // The only one that there is needs no question.
  const asked = devcontainers.length > 1 || (devcontainers.length === 1 && !usual);
  return (
    <div className="ck-columns">
      <Field id="ck-branch" label={trans.__('Branch')}>
        <input
          id="ck-branch"
          className="jp-mod-styled"
          list="ck-branches"
          placeholder={choices.default_branch}
          autoComplete="off"
          spellCheck={false}
          value={wanted.ref ?? ''}
          onChange={event =>
            change({ ref: event.target.value.trim(), devcontainer_path: '' })
          }
        />
        <datalist id="ck-branches">
          {choices.branches.map(name => (
            <option key={name} value={name} />
          ))}
        </datalist>
      </Field>
      {asked && (
        <Field
          id="ck-devcontainer"
          label={trans.__('Dev container configuration')}
        >
          <select
            id="ck-devcontainer"
            className="jp-mod-styled"
            value={wanted.devcontainer_path || usual?.path || ''}
            onChange={event =>
              change({ devcontainer_path: event.target.value })
            }
          >
            {!usual && (
              <option value="">{trans.__("GitHub's standard image")}</option>
            )}
            {devcontainers.map(one => (
              <option key={one.path} value={one.path}>
                {one.title}
              </option>
            ))}
          </select>
        </Field>
      )}
    </div>
  );
}

/** The devcontainer asks for more than its own repository. */
function Permissions(props: IPartProps & { reload: () => void }): JSX.Element {
  const { trans, choices, wanted, change } = props;
  return (
    <fieldset className="ck-permissions">
      <legend>{trans.__('Further permissions')}</legend>
      <p>
        {trans.__(
          'The dev container of this repository asks for permissions on other repositories.'
        )}{' '}
        {choices.permissions_url ? (
          <a
            href={choices.permissions_url}
            target="_blank"
            rel="noopener noreferrer"
          >
            {trans.__('Review them on GitHub')}
          </a>
        ) : (
          trans.__(
            'GitHub names the page to grant them on when it is asked to create; nothing is made before.'
          )
        )}
      </p>
      <div className="ck-columns">
        <Button label={trans.__('I granted them')} onClick={props.reload} />
        <label className="ck-check">
          <input
            type="checkbox"
            checked={!!wanted.default_permissions}
            onChange={event =>
              change({ default_permissions: event.target.checked })
            }
          />
          {trans.__('Go on without them')}
        </label>
      </div>
    </fieldset>
  );
}

/** Ask what there is for a repository, once nothing has been typed for a moment. */
function useChoices(api: Api, wanted: ICreation) {
  const [choices, setChoices] = React.useState<IChoices | null>(null);
  const [failure, setFailure] = React.useState<IFailure | null>(null);
  const [known, setKnown] = React.useState('');
  const [round, setRound] = React.useState(0);
  const asked = React.useRef(round);
  const key = keyOf(wanted);
  const named = REPOSITORY.test(wanted.repository);

  React.useEffect(() => {
    setFailure(null);
    setKnown('');
    if (!named) {
      setChoices(null);
      return;
    }
    let current = true;
    const pause = asked.current === round ? PAUSE : 0;
    asked.current = round;
    const timer = window.setTimeout(async () => {
      try {
        const found = await api.choices(wanted);
        if (current) {
          setChoices(found);
          setKnown(key);
        }
      } catch (error) {
        if (current) {
          setChoices(null);
          setFailure(failureOf(error));
        }
      }
    }, pause);
    return () => {
      current = false;
      window.clearTimeout(timer);
    };
    // What else is wanted changes nothing of the choices.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [api, key, round]);

  return {
    choices,
    failure,
    loading: named && !failure && known !== key,
    reload: () => setRound(before => before + 1)
  };
}

/** Repositories that begin or could be meant by what is typed. */
function useRepositories(api: Api, text: string): string[] {
  const [offered, setOffered] = React.useState<string[]>([]);
  React.useEffect(() => {
    if (REPOSITORY.test(text) && offered.includes(text)) {
      return;
    }
    let current = true;
    const timer = window.setTimeout(
      async () => {
        try {
          const found = await api.repositories(text);
          if (current) {
            setOffered(found);
          }
        } catch {
          // Suggestions are a convenience: what is wrong is told of the choices.
        }
      },
      text ? PAUSE : 0
    );
    return () => {
      current = false;
      window.clearTimeout(timer);
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [api, text]);
  return offered;
}
