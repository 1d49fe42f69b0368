import { Event, ServiceManager } from '@jupyterlab/services';
import { ISignal, Signal } from '@lumino/signaling';

import { Api, IDocument, IConnection, IHeldKernel, IJob } from './api';

const EVENT =
  'https://github.com/codespace-kernels/codespace-kernels/events/state/v1';

/** Milliseconds between two looks at a server that did not answer. */
const RECOVER_PAUSE = 5000;

const EMPTY: IDocument = {
  number: -1,
  status: { broker: null, workspaces: [], kernels: [] },
  jobs: []
};

/** Whether a kernel is that of the notebook at a path of this server. */
export function isOf(path: string): (kernel: IHeldKernel) => boolean {
  return kernel => kernel.session.endsWith(`/${path}`);
}

/**
 * What goes on in the codespaces, kept up to date by the server's events.
 */
export class CodespacesModel {
  constructor(private _services: ServiceManager.IManager) {
    this.api = new Api(_services.serverSettings);
    _services.events.stream.connect(this._onEvent, this);
    _services.connectionFailure.connect(() => void this._recover());
    void this.refresh();
  }

  readonly api: Api;

  /** Emitted after each change. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get jobs(): IJob[] {
    return this._document.jobs;
  }

  get connections(): IConnection[] {
    return this._document.status.workspaces;
  }

  kernelsOf(workspace: string): IHeldKernel[] {
    return this._document.status.kernels.filter(
      kernel =>
        kernel.workspace === workspace &&
        !['dead', 'ended'].includes(kernel.state)
    );
  }

  job(id: string): IJob | undefined {
    return this.jobs.find(job => job.id === id);
  }

  /**
   * The codespace of a kernel; empty where it is elsewhere.
   *
   * A kernelspec names its codespace, or a recipe: then the one is meant in which the notebook's kernel is.
   */
  workspaceOf(kernelspec: string | undefined, path: string): string {
    const spec =
      this._services.kernelspecs.specs?.kernelspecs[kernelspec ?? ''];
    const env = spec?.env as { [name: string]: string } | undefined;
    if (!spec?.metadata?.codespace_kernels) {
      return '';
    }
    return (
      env?.CODESPACE_KERNELS_WORKSPACE ??
      this._document.status.kernels.find(isOf(path))?.workspace ??
      ''
    );
  }

  /** Take the server's state as it is now; events tell of what comes after. */
  async refresh(): Promise<void> {
    try {
      this._take(await this.api.state());
    } catch (error) {
      console.warn('The codespaces panel has no state yet.', error);
    }
  }

  /** A server that was started anew tells of changes once it was asked. */
  private async _recover(): Promise<void> {
    if (this._recovering) {
      return;
    }
    this._recovering = true;
    for (let answered = false; !answered; ) {
      await new Promise(resolve => window.setTimeout(resolve, RECOVER_PAUSE));
      try {
        this._take(await this.api.state());
        answered = true;
      } catch {
        // It is still down.
      }
    }
    this._recovering = false;
  }

  private _onEvent(_: unknown, event: Event.Emission): void {
    if (event.schema_id === EVENT) {
      this._take(event.document as unknown as IDocument);
    }
  }

  private _take(document: IDocument): void {
    // An answer may come after an event that is newer.
    if (document.number >= this._document.number) {
      this._document = document;
      this._changed.emit();
    }
  }

  private _recovering = false;
  private _document = EMPTY;
  private _changed = new Signal<this, void>(this);
}
