import {
  ILabShell,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';

import { IHeldKernel } from './api';
import { showConnectDialog } from './dialog';
import { ITarget } from './flow';
import { codespaceIcon, codespaceIconUrl } from './icon';
import { CodespacesModel, isOf } from './model';
import { CodespacesPanel } from './panel';
import { StatusItem } from './statusItem';

const CONNECT = 'codespace-kernels:connect';
const SHOW = 'codespace-kernels:show-panel';

/** Everything, in JupyterLab and in Notebook 7; what a front end lacks is left out. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'codespace-kernels:plugin',
  description: 'Connects notebooks to GitHub Codespaces.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ITranslator, ICommandPalette, ILauncher, IStatusBar, ILabShell],
  activate
};

export default plugin;

function activate(
  app: JupyterFrontEnd,
  notebooks: INotebookTracker,
  translator: ITranslator | null,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  statusBar: IStatusBar | null,
  labShell: ILabShell | null
): void {
  const trans = (translator ?? nullTranslator).load('codespace_kernels');
  const model = new CodespacesModel(app.serviceManager);

  const connect = (target: ITarget, job?: string) =>
    showConnectDialog({ model, trans, target, job });
  const newNotebook = (cwd?: string): ITarget => ({
    action: trans.__('Open a new notebook'),
    apply: async kernelName => {
      await app.serviceManager.kernelspecs.refreshSpecs();
      await app.commands.execute('notebook:create-new', { kernelName, cwd });
    }
  });
  const sameNotebook = (panel: NotebookPanel): ITarget => ({
    action: trans.__('Use it in %1', panel.title.label),
    apply: async name => {
      await app.serviceManager.kernelspecs.refreshSpecs();
      await panel.sessionContext.changeKernel({ name });
    }
  });
  const currentTarget = () =>
    notebooks.currentWidget
      ? sameNotebook(notebooks.currentWidget)
      : newNotebook();

  app.commands.addCommand(CONNECT, {
    label: args =>
      args.toolbar
        ? ''
        : args.isLauncher
          ? trans.__('Codespace…')
          : trans.__('Connect to Codespace…'),
    caption: trans.__('Connect to Codespace: choose a kernel that runs there'),
    icon: args => (args.isPalette || args.isMenu ? undefined : codespaceIcon),
    execute: args =>
      connect(
        args.isLauncher
          ? newNotebook(args.cwd as string)
          : currentTarget()
      )
  });
  palette?.addItem({
    command: CONNECT,
    category: trans.__('Kernel Operations'),
    args: { isPalette: true }
  });
  launcher?.add({
    command: CONNECT,
    category: trans.__('Notebook'),
    args: { isLauncher: true },
    kernelIconUrl: codespaceIconUrl,
    rank: 1000
  });

  const panel = new CodespacesPanel(
    model,
    {
      connect: job => void connect(currentTarget(), job),
      endKernel: kernel => endKernel(app, model, kernel)
    },
    trans
  );
  app.shell.add(panel, 'left', { rank: 250, type: 'Codespaces' });
  app.commands.addCommand(SHOW, {
    label: trans.__('Show Codespaces'),
    execute: () => app.shell.activateById(panel.id)
  });
  palette?.addItem({ command: SHOW, category: trans.__('Kernel Operations') });

  if (statusBar && labShell) {
    const current = () => {
      const session = notebooks.currentWidget?.sessionContext.session;
      return model.workspaceOf(session?.kernel?.name, session?.path ?? '');
    };
    const item = new StatusItem({
      model,
      trans,
      moved: kernelsLookedAt(notebooks),
      current,
      onClick: () => void app.commands.execute(SHOW)
    });
    statusBar.registerStatusItem('codespace-kernels:codespace', {
      item,
      align: 'left',
      rank: 3
    });
  }
}

/** A signal of another notebook, or another kernel in one. */
function kernelsLookedAt(notebooks: INotebookTracker): Signal<object, void> {
  const moved = new Signal<object, void>({});
  const emit = () => moved.emit();
  notebooks.currentChanged.connect(emit);
  notebooks.widgetAdded.connect((_, panel) =>
    panel.sessionContext.kernelChanged.connect(emit)
  );
  return moved;
}

/** End a kernel as its notebook would, so that the page does not take it for dead; else through the broker. */
async function endKernel(
  app: JupyterFrontEnd,
  model: CodespacesModel,
  kernel: IHeldKernel
): Promise<void> {
  const { sessions } = app.serviceManager;
  for (const session of sessions.running()) {
    const { path } = session;
    const place = model.workspaceOf(session.kernel?.name, path);
    if (place === kernel.workspace && isOf(path)(kernel)) {
      return sessions.shutdown(session.id);
    }
  }
  await model.api.endKernel(kernel.id);
}
