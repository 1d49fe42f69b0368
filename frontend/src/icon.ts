import { LabIcon } from '@jupyterlab/ui-components';

import svgstr from '../style/codespace.svg';

export const codespaceIcon = new LabIcon({
  name: 'codespace-kernels:codespace',
  svgstr
});

/** The same as an address, for the launcher's cards of notebooks, which show pictures. */
export const codespaceIconUrl = `data:image/svg+xml,${encodeURIComponent(svgstr)}`;
