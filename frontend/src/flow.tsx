import { UseSignal } from '@jupyterlab/ui-components';
import React from 'react';

import { failureOf, ICreation, IFailure, IJob } from './api';
import { CodespaceList } from './codespaceList';
import { CreateForm } from './createForm';
import { JobView } from './jobView';
import { KernelList } from './kernelList';
import { CodespacesModel } from './model';
import { Button, Failure, Footer, IViewProps } from './parts';

/** What is done with the kernel that is chosen. */
export interface ITarget {
  /** As a button says it. */
  action: string;
  /** Take the kernelspec of that name, which front ends know by now. */
  apply: (kernelspec: string) => Promise<void>;
}

interface IProps extends IViewProps {
  model: CodespacesModel;
  target: ITarget;
  /** Show this job first; empty for the one that runs, or the list. */
  job?: string;
  onClose: () => void;
}

type View = { at: 'list' | 'create' } | { at: 'job'; id: string };

/** From the list of codespaces, or a new one, to a kernel. */
export function ConnectFlow(props: IProps): JSX.Element {
  const { model, trans } = props;
  const [view, setView] = React.useState<View>(() => firstView(props));
  const [wanted, setWanted] = React.useState<ICreation>({ repository: '' });
  const [failure, setFailure] = React.useState<IFailure | null>(null);

  const begin = async (work: Promise<IJob>) => {
    setFailure(null);
    try {
      const { id } = await work;
      await model.refresh();
      setView({ at: 'job', id });
    } catch (error) {
      setFailure(failureOf(error));
    }
  };
  const showList = () => setView({ at: 'list' });
  const leave = async (job: IJob, next: () => void) => {
    next();
    try {
      await model.api.endJob(job.id);
    } catch (error) {
      console.warn('Work that has ended is not forgotten.', error);
    }
  };
  const choose = async (job: IJob, kernel: string) => {
    const { name } = await model.api.choose(job.id, kernel);
    await props.target.apply(name);
    await leave(job, props.onClose);
  };

  const showJob = (id: string) => {
    const job = model.job(id);
    if (!job) {
      return <Gone trans={trans} onBack={showList} />;
    }
    if (job.state === 'done' && job.kind === 'login') {
      return (
        <CodespaceList
          {...listProps}
          // Signing in is over: nothing of it is to be seen again.
          key="signed-in"
        />
      );
    }
    if (job.state === 'done') {
      return (
        <KernelList
          key={id}
          trans={trans}
          job={job}
          action={props.target.action}
          onChoose={kernel => choose(job, kernel)}
          onInstall={python =>
            void begin(
              model.api.connect(job.result.workspace?.name ?? '', python)
            )
          }
          onBack={() => void leave(job, showList)}
        />
      );
    }
    const back = () =>
      setView({ at: job.kind === 'create' ? 'create' : 'list' });
    return (
      <JobView
        trans={trans}
        job={job}
        onCancel={() => void model.api.endJob(id)}
        onBack={() => void leave(job, back)}
        onClose={
          job.state === 'running'
            ? props.onClose
            : () => void leave(job, props.onClose)
        }
      />
    );
  };

  const listProps = {
    trans,
    api: model.api,
    onConnect: (name: string) => void begin(model.api.connect(name)),
    onCreate: () => setView({ at: 'create' }),
    onSignIn: () => void begin(model.api.login()),
    onClose: props.onClose
  };
  return (
    <>
      {failure && <Failure failure={failure} trans={trans} />}
      {view.at === 'list' && <CodespaceList {...listProps} />}
      {view.at === 'create' && (
        <CreateForm
          trans={trans}
          api={model.api}
          wanted={wanted}
          onChange={setWanted}
          onCreate={request => void begin(model.api.create(request))}
          onBack={showList}
        />
      )}
      {view.at === 'job' && (
        <UseSignal signal={model.changed}>{() => showJob(view.id)}</UseSignal>
      )}
    </>
  );
}

/** Another page has dismissed it, or the server was started anew. */
function Gone(props: IViewProps & { onBack: () => void }): JSX.Element {
  const { trans, onBack } = props;
  return (
    <form className="ck-view" onSubmit={event => event.preventDefault()}>
      <div className="ck-content">
        <p role="status">
          {trans.__('This is over: it is not known to the server any more.')}
        </p>
      </div>
      <Footer>
        <span className="ck-stretch" />
        <Button label={trans.__('Back')} onClick={onBack} accept />
      </Footer>
    </form>
  );
}

function firstView({ model, job }: IProps): View {
  const running = model.jobs.filter(
    one => one.state === 'running' && one.kind !== 'stop'
  );
  const id = job || running[running.length - 1]?.id;
  return id ? { at: 'job', id } : { at: 'list' };
}
