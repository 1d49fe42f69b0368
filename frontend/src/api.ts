import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** A codespace, as `Workspace.to_json` of the Python side has it. */
export interface ICodespace {
  name: string;
  title: string;
  state: 'stopped' | 'starting' | 'running' | 'stopping' | 'busy' | 'failed';
  provider_state: string;
  repository: string;
  ref: string;
  machine: string;
  last_used_at: string;
  web_url: string;
  billable_owner: string;
  dollars_per_hour: number | null;
}

/** What the dialog begins with. */
export interface IAccount {
  host: string;
  codespaces: ICodespace[];
  prices: IPrices;
}

/** Where prices are from. */
export interface IPrices {
  source: string;
  /** ISO date on which they were read. */
  date: string;
}

export interface IProgress {
  stage: string;
  message: string;
  fraction: number | null;
}

export interface IFailure {
  message: string;
  /** Class of the error on the Python side. */
  kind: string;
  /** A page that a person must open to go on; empty where there is none. */
  url: string;
}

export interface IRemoteKernel {
  name: string;
  display_name: string;
  language: string;
}

/** What a job that connects comes to. */
export interface IConnected {
  workspace: ICodespace;
  connection: string;
  kernels: IRemoteKernel[];
  /** Pythons there that could get a kernel. */
  offers: string[];
}

export interface IJob {
  id: string;
  kind: 'connect' | 'create' | 'stop' | 'login';
  subject: string;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  steps: IProgress[];
  detail: {
    workspace?: string;
    user_code?: string;
    verification_uri?: string;
    /** Cancelled before GitHub said what it makes. */
    unnamed?: boolean;
  };
  result: Partial<IConnected>;
  error: IFailure | null;
  /** Unix time. */
  started_at: number;
  ended_at: number | null;
}

export interface IUsage {
  running_since: string | null;
  running_since_exact: boolean;
  /** When GitHub ends the session, in use or not. */
  capped_at: string | null;
  /** The latest that it can be, where the start was not seen. */
  capped_before: string | null;
  idle_stops_at: string | null;
  /** Until when it is kept awake; in the past where that ended. */
  awake_until: string | null;
  keep_awake: string | null;
  /** When its kernelspecs have it stopped. */
  stop_when_idle_at: string | null;
  idle_timeout_minutes: number | null;
  machine: string;
  cores: number | null;
  dollars_per_hour: number | null;
  session_dollars: number | null;
  month_dollars: number | null;
  month_hours: number;
  prices_source: string;
  prices_date: string;
}

/** A codespace that the broker is connected to. */
export interface IConnection {
  name: string;
  api_url: string;
  state: 'not connected' | 'connecting' | 'connected' | 'reconnecting';
  doing: string;
  since: number;
  connection: string;
  round_trip_ms: number | null;
  /** As `ICodespace.state`; null where it has not been looked at. */
  codespace_state?: string | null;
  usage?: IUsage | null;
}

export interface IHeldKernel {
  id: string;
  workspace: string;
  kernel: string;
  state: string;
  since: number;
  /** Path of its notebook, where it is known. */
  session: string;
  kept: boolean;
}

export interface IStatus {
  broker: { version: string } | null;
  workspaces: IConnection[];
  kernels: IHeldKernel[];
}

export interface IDocument {
  /** Grows with each change. */
  number: number;
  status: IStatus;
  jobs: IJob[];
}

export interface IBounds {
  lowest: number;
  highest: number;
  default: number | null;
}

export interface IMachine {
  name: string;
  title: string;
  cpus: number;
  memory_bytes: number;
  storage_bytes: number;
  prebuild: string;
  dollars_per_hour: number | null;
}

export interface IChoices {
  repository: string;
  default_branch: string;
  payer: { login: string; kind: string };
  branches: string[];
  devcontainers: { path: string; title: string; is_default: boolean }[];
  machines: IMachine[];
  locations: string[];
  idle_timeout_minutes: IBounds;
  retention_minutes: IBounds;
  permissions_accepted: boolean | null;
  permissions_url: string;
  notes: string[];
  prices: IPrices;
}

/** What is to be created; what is left out is GitHub's choice. */
export interface ICreation {
  repository: string;
  ref?: string;
  devcontainer_path?: string;
  machine?: string;
  display_name?: string;
  idle_timeout_minutes?: number | null;
  retention_period_minutes?: number | null;
  location?: string;
  default_permissions?: boolean;
}

/** An answer that says why something could not be done. */
export class RequestError extends Error {
  constructor(readonly failure: IFailure) {
    super(failure.message);
  }
}

/** What anything that was thrown means for a person. */
export function failureOf(error: unknown): IFailure {
  if (error instanceof RequestError) {
    return error.failure;
  }
  const message = error instanceof Error ? error.message : String(error);
  return { message, kind: '', url: '' };
}

/** The requests of the Jupyter server's side. */
export class Api {
  constructor(private _settings: ServerConnection.ISettings) {}

  state(): Promise<IDocument> {
    return this._ask('state');
  }

  codespaces(): Promise<IAccount> {
    return this._ask('codespaces');
  }

  async repositories(text: string): Promise<string[]> {
    const query = URLExt.objectToQueryString({ text });
    const answer = await this._ask<{ repositories: string[] }>(
      `repositories${query}`
    );
    return answer.repositories;
  }

  choices(wanted: ICreation): Promise<IChoices> {
    return this._ask('choices', 'POST', wanted);
  }

  connect(workspace: string, install_ipykernel = ''): Promise<IJob> {
    const body = { kind: 'connect', workspace, install_ipykernel };
    return this._ask('jobs', 'POST', body);
  }

  create(request: ICreation): Promise<IJob> {
    return this._ask('jobs', 'POST', { kind: 'create', request });
  }

  stop(workspace: string): Promise<IJob> {
    return this._ask('jobs', 'POST', { kind: 'stop', workspace });
  }

  login(): Promise<IJob> {
    return this._ask('jobs', 'POST', { kind: 'login' });
  }

  /** Cancel a job that runs, or forget one that has ended. */
  endJob(id: string): Promise<IDocument> {
    return this._ask(`jobs/${id}`, 'DELETE');
  }

  endKernel(id: string): Promise<unknown> {
    return this._ask(`kernels/${id}`, 'DELETE');
  }

  /** Write the kernelspec of a kernel that a job has found. */
  choose(job: string, kernel: string): Promise<{ name: string }> {
    return this._ask('kernelspecs', 'POST', { job, kernel });
  }

  private async _ask<T>(
    path: string,
    method = 'GET',
    body?: unknown
  ): Promise<T> {
    const url = URLExt.join(
      this._settings.baseUrl,
      'codespace-kernels',
      path
    );
    const init = {
      method,
      body: body === undefined ? undefined : JSON.stringify(body)
    };
    const response = await ServerConnection.makeRequest(
      url,
      init,
      this._settings
    );
    const text = await response.text();
    let data: any = null;
    try {
      data = JSON.parse(text);
    } catch {
      // Told below.
    }
    if (response.ok && data !== null) {
      return data;
    }
    if (response.status === 404) {
      data = null;
    }
    throw new RequestError({
      message:
        data?.message ??
        `The Jupyter server answered with ${response.status} ${response.statusText}. ` +
          'Restart it in an environment that has codespace-kernels.',
      kind: data?.kind ?? '',
      url: data?.url ?? ''
    });
  }
}
