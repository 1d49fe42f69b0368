import React from 'react';

import { failureOf, IFailure, IJob } from './api';
import { Button, Failure, Footer, IViewProps, Options } from './parts';

interface IProps extends IViewProps {
  job: IJob;
  /** What choosing a kernel does, as a button says it. */
  action: string;
  onChoose: (kernel: string) => Promise<void>;
  onInstall: (python: string) => void;
  onBack: () => void;
}

/** The kernels of a codespace that is connected, one of which is chosen. */
export function KernelList(props: IProps): JSX.Element {
  const { job, trans } = props;
  const kernels = job.result.kernels ?? [];
  const offers = job.result.offers ?? [];
  const usual = kernels.find(kernel => kernel.name === 'python3') ?? kernels[0];
  const [name, setName] = React.useState(usual?.name ?? '');
  const [working, setWorking] = React.useState(false);
  const [failure, setFailure] = React.useState<IFailure | null>(null);

  const choose = async (kernel: string) => {
    setWorking(true);
    setFailure(null);
    try {
      await props.onChoose(kernel);
    } catch (error) {
      setFailure(failureOf(error));
      setWorking(false);
    }
  };
  const submit = (event: React.FormEvent) => {
    event.preventDefault();
    void choose(name);
  };

  return (
    <form className="ck-view" onSubmit={submit}>
      <div className="ck-content">
        <h2 className="ck-heading">
          {trans.__(
            'Connected to %1',
            job.result.workspace?.title ?? job.subject
          )}
        </h2>
        {kernels.length > 0 ? (
          <Options
            label={trans.__('Kernels')}
            name="ck-kernel"
            value={name}
            onChange={setName}
            onChosen={kernel => void choose(kernel)}
            focus
            options={kernels.map(kernel => ({
              value: kernel.name,
              title: kernel.display_name,
              aside: kernel.language,
              detail: kernel.name
            }))}
          />
        ) : (
          <p>{trans.__('This codespace has no kernels yet.')}</p>
        )}
        <p className="ck-note">{trans.__('Reached by %1', job.result.connection ?? '')}</p>
        {offers.map(offer => (
          <p className="ck-offer" key={offer}>
            <span>{trans.__('%1 could be a kernel, too.', offer)}</span>
            <Button
              label={trans.__('Install ipykernel there')}
              onClick={() => props.onInstall(offer)}
            />
          </p>
        ))}
        {failure && <Failure failure={failure} trans={trans} />}
      </div>
      <Footer>
        <Button label={trans.__('Back')} onClick={props.onBack} />
        <span className="ck-stretch" />
        <Button
          label={props.action}
          accept
          disabled={working || kernels.length === 0}
        />
      </Footer>
    </form>
  );
}
