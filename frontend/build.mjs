// Bundles `lib/` into `codespace_kernels/labextension/` with JupyterLab's own builder, without any Python: its core
// metadata, which says what JupyterLab shares with its extensions, comes from npm.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const builder = require.resolve('@jupyterlab/builder/lib/build-labextension.js');
const core = join(here, 'lib', 'core');

mkdirSync(core, { recursive: true });
copyFileSync(
  join(here, 'node_modules', '@jupyterlab', 'core-meta', 'core.package.json'),
  join(core, 'package.json')
);
execFileSync(process.execPath, [builder, '--core-path', core, here], {
  cwd: here,
  stdio: 'inherit'
});
